package guisegrpc_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/guise-project/guise/guisegrpc"
	"github.com/guise-project/guise/internal/callers"
)

// onAnother calls fn on a goroutine of its own, which is in no scope, as interceptors that retry, hedge or bound the time do.
func onAnother(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
}

func elsewhereUnary(ctx context.Context, method string, request, reply any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) (err error) {
	onAnother(func() { err = invoke(ctx, method, request, reply, c, options...) })
	return err
}

func elsewhereStream(ctx context.Context, d *grpc.StreamDesc, c *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (stream grpc.ClientStream, err error) {
	onAnother(func() { stream, err = open(ctx, d, c, method, options...) })
	return stream, err
}

func TestInterceptorsDoNotTakeCallsPastTheGuard(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator)
	for _, test := range []struct {
		name    string
		options []grpc.DialOption
		inside  error // how calls in a scope end
		outside error // and outside of scopes, as the process
	}{
		{"in the chain", []grpc.DialOption{grpc.WithChainUnaryInterceptor(elsewhereUnary), grpc.WithChainStreamInterceptor(elsewhereStream)}, guisegrpc.ErrInScope, nil},
		{"before the chain", []grpc.DialOption{grpc.WithUnaryInterceptor(elsewhereUnary), grpc.WithStreamInterceptor(elsewhereStream)}, guisegrpc.ErrInterceptor, guisegrpc.ErrInterceptor},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, err := guisegrpc.NewClient(s.pipe, nil, test.options...)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			calls := map[string]func(file string) (string, error){
				"unary": func(file string) (string, error) { return call(soon(t), client, file) },
				"stream": func(file string) (string, error) {
					stream, err := client.NewStream(soon(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, streamMethod)
					if err != nil {
						return "", err
					}
					return exchange(stream, file)
				},
			}
			for kind, do := range calls {
				expect := func(where string, want error) func() error {
					return func() error {
						owner, err := do(s.file(test.name, kind, where))
						if !errors.Is(err, want) || want == nil && owner != "0" {
							t.Errorf("a %s call %s is one of %q, %v, want %v", kind, where, owner, err, want)
						}
						if want != nil && status.Code(err) != codes.FailedPrecondition {
							t.Errorf("a %s call %s ends with the code %v", kind, where, status.Code(err))
						}
						return nil
					}
				}
				callers.As(t, callers.User(t, 61001), expect("in a scope", test.inside))
				callers.As(t, nil, expect("outside", test.outside))
			}
		})
	}
}

// TestHandlersOnAnotherGoroutineAreTheServer shows why UnaryAsClient comes last.
func TestHandlersOnAnotherGoroutineAreTheServer(t *testing.T) {
	callers.NeedRoot(t)
	elsewhere := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
		onAnother(func() { answer, err = handle(ctx, request) })
		return answer, err
	}
	bare := func(_ context.Context, path string) (string, error) { return callers.Create(path) }
	for owner, order := range map[string][]grpc.UnaryServerInterceptor{
		"61001": {elsewhere, guisegrpc.UnaryAsClient},
		"0":     {guisegrpc.UnaryAsClient, elsewhere},
	} {
		s := serve(t, nil, bare, grpc.ChainUnaryInterceptor(order...))
		client := s.dial(t, callers.User(t, 61001), nil)
		if got, err := call(soon(t), client, s.file("file")); got != owner || err != nil {
			t.Errorf("the handler ran as %q, %v, want %s", got, err, owner)
		}
	}
}

// TestStreamsAreNotTheInterceptors shows that UnaryAsClient is for unary calls alone.
func TestStreamsAreNotTheInterceptors(t *testing.T) {
	callers.NeedRoot(t)
	bare := func(_ context.Context, path string) (string, error) { return callers.Create(path) }
	s := serve(t, nil, bare, grpc.UnaryInterceptor(guisegrpc.UnaryAsClient))
	client := s.dial(t, callers.User(t, 61001), nil)
	stream, err := client.NewStream(soon(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, streamMethod)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := exchange(stream, s.file("file")); got != "0" || err != nil {
		t.Errorf("the handler of a stream ran as %q, %v; if that is the caller, UnaryAsClient's comment is wrong", got, err)
	}
}
