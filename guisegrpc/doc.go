// Package guisegrpc makes gRPC calls on pipes: a server's handlers know who calls and act as the caller, and a client calls as who it is in
// its scope.
//
//	server := grpc.NewServer(grpc.Creds(guisegrpc.NewServerCredentials()))
//	...
//	server.Serve(listener) // of guise.Listen
//
//	func (s *service) Remove(ctx context.Context, name *wrapperspb.StringValue) (*emptypb.Empty, error) {
//		err := guisegrpc.RunAsClient(ctx, func(*guise.Scope) error {
//			return s.root.Remove(name.Value) // with the caller's rights
//		})
//		...
//	}
//
// gRPC's clients in other languages, which know nothing of guise, call such a server as unix:/run/guise/pipe/NAME with insecure
// credentials, and are taken for who opened the connection.
//
// # Whose call it is
//
// A call is that of who opened the connection it came on. gRPC carries many calls at once on a connection and reads ahead of all of
// them, so tracking has to be static. With dynamic tracking the context is that of what has been read last, which is not the call
// being handled: the handshake fails then with [ErrDynamic], on the server's side and on the client's, and the connection is
// closed. Nothing is frozen to static unasked, because a client that relies on being followed would have its calls acted on as who
// opened the connection.
//
// What is not seen: a proxy. Its calls are its own, whoever's they were. ListenConfig.Allow can turn a proxy's account away. Peer.Addr
// is no identity: a client of this machine gives its socket the address that it likes.
//
// # Calling
//
// grpc.NewClient dials on goroutines of gRPC's, at any time, and they are the process. So there are two ways to call, and neither takes one
// caller for another:
//
//   - [Dial] opens the pipe at once, on the calling goroutine: in a scope, as the scope's client. The ClientConn has this one connection.
//     When that ends the ClientConn's calls fail with [ErrConnectionEnded] (codes.Unavailable), and nothing is dialled again: that would be
//     as the process.
//   - [NewClient] is for the process. Its ClientConn dials when it has to, as often as it has to. In a scope it fails with [ErrInScope].
//
// A call that is made in a scope on a ClientConn that is not this scope's client's fails with [ErrInScope]
// (codes.FailedPrecondition) and is not sent. Outside of scopes calls go out on either, as who opened the connection. Only the
// start of a call is looked at; what is sent on a stream goes where the stream does. A goroutine that was started with a go
// statement in a scope is not in it, and is not told from any other of the process. Interceptors may start some, so the look comes before
// them: they are given with grpc.WithChainUnaryInterceptor and grpc.WithChainStreamInterceptor, and where one was given with
// grpc.WithUnaryInterceptor or grpc.WithStreamInterceptor, which would come first, calls of its kind fail with [ErrInterceptor].
//
// # Security level
//
// gRPC's security level of a connection on this machine is PrivacyAndIntegrity, as for Unix sockets in gRPC's own
// credentials/local: the bytes pass through the kernel, and each end is known by it. Of one that comes from or goes to another
// machine it is NoSecurity, because nothing here sees how Samba's other side is secured; credentials that want more are not sent on
// it.
//
// # Handlers
//
// [RunAsClient] runs its function on the calling goroutine, as [guise.Conn.RunAsClient] does; keep it short, as the guise package's
// comment says. [UnaryAsClient] has whole handlers of unary calls run that way, whose requests have been read by then. There is no
// such thing for streams, on purpose: a scope holds a thread as long as it lasts, and a stream lasts as long as its client likes. So a
// stream's handler is the server, but for what it does in RunAsClient, also where UnaryAsClient is there. Deadlines and cancellation of a
// call do not interrupt the function.
package guisegrpc
