package guisegrpc_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisegrpc"
	"github.com/guise-project/guise/internal/callers"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// soon is the context of what should happen at once.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// handler is what a service does for a call: it answers a text with a text.
type handler func(ctx context.Context, text string) (string, error)

// description is a service of one method, as protoc-gen-go-grpc would write it.
var description = grpc.ServiceDesc{
	ServiceName: "guise.test.Service",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: func(service any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		request := new(wrapperspb.StringValue)
		if err := decode(request); err != nil {
			return nil, err
		}
		handle := func(ctx context.Context, request any) (any, error) {
			text, err := service.(handler)(ctx, request.(*wrapperspb.StringValue).Value)
			return wrapperspb.String(text), err
		}
		if intercept == nil {
			return handle(ctx, request)
		}
		return intercept(ctx, request, &grpc.UnaryServerInfo{Server: service, FullMethod: method}, handle)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Stream", ClientStreams: true, ServerStreams: true, Handler: func(service any, stream grpc.ServerStream) error {
		for {
			request := new(wrapperspb.StringValue)
			if err := stream.RecvMsg(request); err != nil {
				return nil
			}
			text, err := service.(handler)(stream.Context(), request.Value)
			if err != nil {
				return err
			}
			if err := stream.SendMsg(wrapperspb.String(text)); err != nil {
				return err
			}
		}
	}}},
}

const (
	method       = "/guise.test.Service/Call"
	streamMethod = "/guise.test.Service/Stream"
)

// call makes a call.
func call(ctx context.Context, client grpc.ClientConnInterface, text string) (string, error) {
	answer := new(wrapperspb.StringValue)
	err := client.Invoke(ctx, method, wrapperspb.String(text), answer)
	return answer.Value, err
}

// creator makes the file that it is asked for as the caller, and answers with its owner.
var creator handler = func(ctx context.Context, path string) (owner string, err error) {
	err = guisegrpc.RunAsClient(ctx, func(*guise.Scope) (err error) {
		owner, err = callers.Create(path)
		return err
	})
	if err != nil {
		err = status.Error(guisegrpc.Code(err), err.Error())
	}
	return owner, err
}

// served is a gRPC server on a pipe, with a directory that everybody may write to.
type served struct {
	*grpc.Server
	dir, pipe string
	conns     atomic.Int32 // whose handshake is over
}

func (s *served) file(name ...any) string { return filepath.Join(s.dir, fmt.Sprint(name...)) }

// serve serves until the end of the test.
func serve(t testing.TB, config *guise.ListenConfig, service handler, options ...grpc.ServerOption) *served {
	t.Helper()
	s := &served{dir: testdir.Open(t, 0o1777), pipe: filepath.Join(testdir.Open(t, 0o755), "pipe")}
	l, err := guise.Listen(s.pipe, config)
	if err != nil {
		t.Fatal(err)
	}
	s.Server = grpc.NewServer(append(options, grpc.Creds(guisegrpc.NewServerCredentials()), grpc.StatsHandler(s))...)
	s.RegisterService(&description, service)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-ended
	})
	return s
}

func (s *served) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	s.conns.Add(1)
	return ctx
}
func (s *served) HandleConn(context.Context, stats.ConnStats)                     {}
func (s *served) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (s *served) HandleRPC(context.Context, stats.RPCStats)                       {}

// dial opens the pipe as who, nil being the process.
func (s *served) dial(t testing.TB, who *token.Token, d guisegrpc.Dialer) *grpc.ClientConn {
	t.Helper()
	var client *grpc.ClientConn
	callers.As(t, who, func() (err error) {
		client, err = guisegrpc.Dial(soon(t), s.pipe, d)
		return err
	})
	if client == nil {
		t.FailNow()
	}
	t.Cleanup(func() { client.Close() })
	return client
}
