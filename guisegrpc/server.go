package guisegrpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/guise-project/guise"
)

// FromContext returns the connection that a handler's call came on: who its client is, and on what terms. It is gRPC's: it must not
// be read from, written to or closed.
//
// The error is [ErrNoPipe] where ctx is not a handler's, or the server has other credentials than [NewServerCredentials].
func FromContext(ctx context.Context) (*guise.Conn, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, ErrNoPipe
	}
	info, ok := p.AuthInfo.(AuthInfo)
	if !ok || info.Conn == nil {
		return nil, ErrNoPipe
	}
	// AuthInfo can be made by anybody.
	if err := usable(info.Conn); err != nil {
		return nil, err
	}
	return info.Conn, nil
}

// RunAsClient calls fn on the calling goroutine, as who opened the connection that the call came on: see [guise.Conn.RunAsClient].
// Where that can't be, fn is not called. What a handler should return for an error says [Code].
func RunAsClient(ctx context.Context, fn func(*guise.Scope) error) error {
	c, err := FromContext(ctx)
	if err != nil {
		return err
	}
	return c.RunAsClient(fn)
}

// UnaryAsClient is a [grpc.UnaryServerInterceptor] that runs the handlers of unary calls, and the interceptors after it, as their
// callers. A call whose caller can't be acted for fails with the status of [Code]; the handler's own error goes out as it is.
//
// It is the last of the chain. One after it that calls the handler on a goroutine of its own, as some do that bound its time, has it run as
// the server.
//
// Each call that is being handled holds a thread, one connection may carry any number of calls, and the Go runtime ends the process at 10,000
// threads: an interceptor before this one bounds how many there are, as in examples/grpc.
//
// All of the server's unary calls are run that way, also those that could do without, such as health checks. None of its streams is.
func UnaryAsClient(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	var response any
	var handled error
	err := RunAsClient(ctx, func(*guise.Scope) error {
		response, handled = handler(ctx, request)
		return nil
	})
	if err != nil {
		return nil, &callError{Code(err), err}
	}
	return response, handled
}

var _ grpc.UnaryServerInterceptor = UnaryAsClient
