package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// overGRPC is gRPC on a Unix socket. The server asks the socket who is there (SO_PEERCRED) and does not act as its client: answering is
// what it does as itself.
func overGRPC(answering func(name string) ([]byte, error)) protocol {
	return protocol{
		serve: func(dir string, ready func(), until func()) error {
			socket := filepath.Join(dir, "grpc")
			l, err := net.Listen("unix", socket)
			if err != nil {
				return err
			}
			if err := os.Chmod(socket, 0o666); err != nil {
				return err
			}
			s := grpc.NewServer(grpc.Creds(peerCredentials{insecure.NewCredentials()}))
			s.RegisterService(&grpc.ServiceDesc{
				ServiceName: "guise.bench.Files",
				HandlerType: (*any)(nil),
				Methods:     []grpc.MethodDesc{{MethodName: "Get", Handler: getOverGRPC(answering)}},
			}, nil)
			go s.Serve(l)
			ready()
			until()
			s.Stop()
			return nil
		},
		dial: func(dir string) (connection, error) {
			c, err := grpc.NewClient("unix:"+filepath.Join(dir, "grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return nil, err
			}
			return grpcConnection{c}, nil
		},
	}
}

// What a server that does not act may do for its answer: what guise's does, or nothing.
func readAsServer(name string) ([]byte, error) { return os.ReadFile(name) }
func fromMemory(string) ([]byte, error)        { return contents, nil }

// getOverGRPC is what protoc-gen-go-grpc writes, and the method.
func getOverGRPC(answering func(name string) ([]byte, error)) grpc.MethodHandler {
	return func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var name wrapperspb.StringValue
		if err := decode(&name); err != nil {
			return nil, err
		}
		p, ok := grpcpeer.FromContext(ctx)
		if !ok {
			return nil, status.Error(codes.Unauthenticated, "nobody is there")
		}
		if who, ok := p.AuthInfo.(peerInfo); !ok || who.Uid != alice.UID {
			return nil, status.Errorf(codes.PermissionDenied, "somebody else is there: %v", p.AuthInfo)
		}
		b, err := answering(name.Value)
		if err != nil {
			return nil, status.Error(codes.Unknown, err.Error())
		}
		return wrapperspb.Bytes(b), nil
	}
}

type grpcConnection struct{ *grpc.ClientConn }

func (c grpcConnection) ask(name string, answer []byte) error {
	var got wrapperspb.BytesValue
	if err := c.Invoke(context.Background(), "/guise.bench.Files/Get", wrapperspb.String(name), &got); err != nil {
		return err
	}
	copy(answer, got.Value)
	return nil
}

func (c grpcConnection) close() error { return c.Close() }

// peerCredentials are the server's: none but what the kernel says of the socket's other end.
type peerCredentials struct {
	credentials.TransportCredentials
}

type peerInfo struct {
	*unix.Ucred
	credentials.CommonAuthInfo
}

func (peerInfo) AuthType() string { return "SO_PEERCRED" }

func (peerCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.New("not a Unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var who *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return c, peerInfo{Ucred: who, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}, errors.Join(err, controlErr)
}

func (c peerCredentials) Clone() credentials.TransportCredentials {
	return peerCredentials{c.TransportCredentials.Clone()}
}
