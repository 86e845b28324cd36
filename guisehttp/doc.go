// Package guisehttp serves HTTP on a pipe, with handlers that act as who sent the request, and sends requests as who makes them.
//
//	server := &http.Server{Handler: handler, ConnContext: guisehttp.ConnContext}
//	server.Serve(listener) // of guise.Listen
//
//	func handler(w http.ResponseWriter, r *http.Request) {
//		var f *os.File
//		err := guisehttp.RunAsClient(r, func(*guise.Scope) (err error) {
//			f, err = root.Open(r.URL.Path[1:]) // with the client's rights
//			return err
//		})
//		...                                // answer after the scope
//	}
//
// Any HTTP client that can speak on a Unix socket is a client: curl --unix-socket /run/guise/pipe/NAME http://NAME/.
//
// # Whose request it is
//
// A request is that of who opened the connection it came on. That holds for every request of a connection: the second one of a
// connection that is kept alive, those that a client sends without waiting for answers, and the streams of HTTP/2, all of which
// net/http reads before, and while, others are handled. So tracking has to be static: with dynamic tracking the context is that of
// what has been read last, which in net/http is not what is being handled, and a request would be acted on as somebody who did not
// make it. [Conn] and [RunAsClient] refuse such connections with [ErrDynamic]; nothing is frozen to static unasked, because a
// client that relies on being followed (one that writes each request in another scope, say) would have its requests acted on as who
// opened the connection. The requests of clients that state no tracking are dynamic if ListenConfig.Tracking says so: leave it
// alone.
//
// What is not seen: a reverse proxy. Its connections are its own, whoever's requests it sends on them, and the handlers act as the
// proxy. No header changes that. ListenConfig.Allow can turn a proxy's account away. A proxy of one's own that sends each request
// as its caller is made with [Transport], see there.
//
// Request.RemoteAddr is no identity: a client of this machine gives its socket the address that it likes ("127.0.0.1:1" is a file's
// name). Whatever goes by it is the client's to decide: an X-Forwarded-For of httputil.ReverseProxy, a debug page that is for localhost, a
// limit per address.
//
// Behind TLS, or anything else that wraps the listener's connections, a request has no connection here ([ErrNoPipe]). A hijacked
// connection is the [guise.Conn] itself, and goes on as what it is: static.
//
// # Handlers
//
// [RunAsClient] runs its function on the calling goroutine, as [guise.Conn.RunAsClient] does; what that says of goroutines,
// programs and what stays the server's goes for handlers too. http.TimeoutHandler runs its handler on a goroutine of its own:
// RunAsClient belongs inside it, never around it. Open files in the scope; read the request's body and write the response outside
// of it. Both take as long as the client likes, and a scope holds a thread, of which the Go runtime lets a process have 10,000.
// Nothing interrupts the function when the client goes.
//
// A path that comes from a request may be /proc/self, which is the server, and which the kernel lets the server's threads into whoever they
// are; os.Root keeps it out.
//
// # Sending requests
//
// [Transport] sends requests on a pipe, in a scope as the scope's client. http.Transport does not: it dials on goroutines of its own,
// which are the process, and it keeps connections for whoever comes next.
//
// # Errors
//
//	ErrNoPipe    the request did not come on a pipe              set Server.ConnContext, and serve the guise.Listener itself
//	ErrDynamic   tracking is dynamic                             let the client state static tracking, or nothing
//
// All others are those of package guise, or what the function returned. [Status] makes a response's status of them.
package guisehttp
