package guisegrpc

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// ErrInterceptor: an interceptor would be called before the look at which scope a call is made in, and could take it to a goroutine that is
// in none.
var ErrInterceptor = errors.New("guisegrpc: the ClientConn was made with grpc.WithUnaryInterceptor or grpc.WithStreamInterceptor; use grpc.WithChainUnaryInterceptor or grpc.WithChainStreamInterceptor")

// guard keeps calls that are made in other scopes off a ClientConn.
type guard struct{ caller *token.Token } // nil: the process

// newGuard returns the options of a guard, which go before all others.
//
// A scope is its goroutine's, so the look at it has to come before every interceptor that may change the goroutine. gRPC calls the
// one interceptor that is not of the chain before the chain, and options that come later replace it. So the chain begins with a look at whether
// the guard is still there.
func newGuard(caller *token.Token) []grpc.DialOption {
	g := &guard{caller}
	return []grpc.DialOption{
		grpc.WithUnaryInterceptor(g.unary), grpc.WithChainUnaryInterceptor(g.afterUnary),
		grpc.WithStreamInterceptor(g.stream), grpc.WithChainStreamInterceptor(g.afterStream),
	}
}

// passedKey is of the guard that has let a call pass.
type passedKey struct{}

// pass returns the context of a call that may be made.
func (g *guard) pass(ctx context.Context) (context.Context, error) {
	worn, err := guise.Wearing()
	if err == nil && worn != nil && !worn.Equal(g.caller) {
		err = ErrInScope
	}
	if err != nil {
		return nil, &callError{codes.FailedPrecondition, err}
	}
	return context.WithValue(ctx, passedKey{}, g), nil
}

func (g *guard) passed(ctx context.Context) error {
	if ctx.Value(passedKey{}) != g {
		return &callError{codes.FailedPrecondition, ErrInterceptor}
	}
	return nil
}

func (g *guard) unary(ctx context.Context, method string, request, reply any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	ctx, err := g.pass(ctx)
	if err != nil {
		return err
	}
	return invoke(ctx, method, request, reply, c, options...)
}

func (g *guard) afterUnary(ctx context.Context, method string, request, reply any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if err := g.passed(ctx); err != nil {
		return err
	}
	return invoke(ctx, method, request, reply, c, options...)
}

func (g *guard) stream(ctx context.Context, d *grpc.StreamDesc, c *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, err := g.pass(ctx)
	if err != nil {
		return nil, err
	}
	return open(ctx, d, c, method, options...)
}

func (g *guard) afterStream(ctx context.Context, d *grpc.StreamDesc, c *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	if err := g.passed(ctx); err != nil {
		return nil, err
	}
	return open(ctx, d, c, method, options...)
}
