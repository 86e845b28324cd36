package guisegrpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/statictracking"
	"github.com/guise-project/guise/token"
)

var (
	// ErrInScope: in a scope, a call on a ClientConn that is not this scope's client's, or an attempt to make one that would not be.
	ErrInScope = errors.New("guisegrpc: in a scope, this would go out as somebody else; Dial in the scope")
	// ErrConnectionEnded: the one connection of a ClientConn that [Dial] made has ended. gRPC passes its text on, and not the error itself.
	ErrConnectionEnded = errors.New("guisegrpc: the connection that was dialled has ended; Dial again")
)

// Dialer opens pipes: a [*guise.Dialer], or the Dialer of package smb for those of other machines. One that opens a pipe with any
// but static tracking is refused with [ErrDynamic]. Where a guise.Dialer says nothing of tracking, static is stated.
type Dialer interface {
	Dial(ctx context.Context, name string) (*guise.Conn, error)
}

// Dial opens a pipe on the calling goroutine, in a scope as the scope's client, and returns a ClientConn for calls on this one
// connection. It waits until the server has answered, or ctx ends. A nil Dialer is a [guise.Dialer] that states nothing but static
// tracking.
//
// It may be used by many goroutines, in this scope, in others of the same context, and outside of scopes; its calls are of who
// dialled. The caller closes it. The options are gRPC's, but for how to dial and the credentials, which are this package's, and for
// interceptors, which are given with [grpc.WithChainUnaryInterceptor] and [grpc.WithChainStreamInterceptor]: with
// [grpc.WithUnaryInterceptor] or [grpc.WithStreamInterceptor] calls fail with [ErrInterceptor].
func Dial(ctx context.Context, pipe string, d Dialer, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	d, ok := statictracking.Stated(d)
	if !ok {
		return nil, ErrDynamic
	}
	caller, err := guise.Wearing()
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, d, pipe)
	if err != nil {
		return nil, err
	}
	// A scope that follows its client may have followed meanwhile.
	if now, err := guise.Wearing(); err != nil || !caller.Equal(now) {
		c.Close()
		return nil, fmt.Errorf("%w: its client changed while the pipe was being opened", ErrInScope)
	}
	options = append(options[:len(options):len(options)], grpc.WithIdleTimeout(0)) // it would be closed, and dialled again
	var taken atomic.Bool
	client, err := newClient(caller, options, func(context.Context, string) (net.Conn, error) {
		if taken.Swap(true) {
			return nil, ErrConnectionEnded
		}
		return c, nil
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	if err := connect(ctx, client); err != nil {
		client.Close()
		c.Close() // it may not have been asked for
		return nil, fmt.Errorf("guisegrpc: %s: %w", pipe, err)
	}
	return client, nil
}

// connect has the connection taken, and waits for the server.
func connect(ctx context.Context, client *grpc.ClientConn) error {
	client.Connect()
	for {
		switch state := client.GetState(); state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return errors.New("the server ended the connection; perhaps it does not let this client in, takes a higher level, or is none of gRPC's")
		default:
			if !client.WaitForStateChange(ctx, state) {
				return ctx.Err()
			}
		}
	}
}

// NewClient returns a ClientConn of the process: it opens the pipe when it has to, on goroutines of gRPC's, and its calls can't be
// made in scopes. See [Dial] for the arguments, and for what is to be called in a scope, where NewClient fails with [ErrInScope].
func NewClient(pipe string, d Dialer, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	d, ok := statictracking.Stated(d)
	if !ok {
		return nil, ErrDynamic
	}
	if worn, err := guise.Wearing(); err != nil || worn != nil {
		return nil, ErrInScope
	}
	return newClient(nil, options, func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, d, pipe) })
}

func newClient(caller *token.Token, options []grpc.DialOption, dial func(context.Context, string) (net.Conn, error)) (*grpc.ClientConn, error) {
	all := append(newGuard(caller), grpc.WithAuthority("localhost"))
	all = append(all, options...)
	all = append(all, grpc.WithTransportCredentials(transport{}), grpc.WithContextDialer(dial))
	return grpc.NewClient("passthrough:///pipe", all...)
}

// dial returns a net.Conn that is not a nil *guise.Conn.
func dial(ctx context.Context, d Dialer, pipe string) (net.Conn, error) {
	c, err := d.Dial(ctx, pipe)
	if err != nil {
		return nil, err
	}
	if err := usable(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
