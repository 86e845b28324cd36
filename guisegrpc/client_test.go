package guisegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisegrpc"
	"github.com/guise-project/guise/internal/callers"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// exchange sends a text on a stream and returns the answer.
func exchange(stream grpc.ClientStream, text string) (string, error) {
	if err := stream.SendMsg(wrapperspb.String(text)); err != nil {
		return "", err
	}
	answer := new(wrapperspb.StringValue)
	err := stream.RecvMsg(answer)
	return answer.Value, err
}

// TestOrdinaryClientsOfAScopeAreTheProcess shows what Dial is for: as whom gRPC's own client calls in a scope.
func TestOrdinaryClientsOfAScopeAreTheProcess(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator)
	callers.As(t, callers.User(t, 61001), func() error {
		client, err := grpc.NewClient("passthrough:///pipe", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return (&guise.Dialer{}).DialContext(ctx, "", s.pipe)
			}))
		if err != nil {
			return err
		}
		defer client.Close()
		got, err := call(soon(t), client, s.file("file"))
		if got != "0" {
			t.Errorf("the call is one of %q; if gRPC dials on its caller's goroutine, the package comment is wrong", got)
		}
		return err
	})
}

func TestManyCallersAtOnceDoNotMix(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator)
	const many, calls = 8, 10
	var wait sync.WaitGroup
	for i := range many {
		wait.Go(func() {
			uid := uint32(61001 + i)
			callers.As(t, callers.User(t, uid), func() error {
				client, err := guisegrpc.Dial(soon(t), s.pipe, nil)
				if err != nil {
					return err
				}
				defer client.Close()
				for j := range calls {
					if got, err := call(soon(t), client, s.file(uid, "-", j)); got != fmt.Sprint(uid) || err != nil {
						t.Errorf("a call of %d is one of %q, %v", uid, got, err)
					}
				}
				return nil
			})
		})
	}
	wait.Wait()
	if n := s.conns.Load(); n != many {
		t.Errorf("%d callers made %d connections", many, n)
	}
}

func TestCallsInAnotherScopeAreRefused(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator)
	process, err := guisegrpc.NewClient(s.pipe, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer process.Close()
	ofOne := s.dial(t, callers.User(t, 61001), nil)
	dialled := s.dial(t, nil, nil)
	for _, test := range []struct {
		name   string
		client *grpc.ClientConn
		caller uint32 // 0: outside of scopes
		owner  string // "": the call is refused
	}{
		{"the process's, outside", process, 0, "0"},
		{"the process's, in a scope", process, 61001, ""},
		{"the process's that Dial made, outside", dialled, 0, "0"},
		{"the process's that Dial made, in a scope", dialled, 61001, ""},
		{"of another scope of the same context", ofOne, 61001, "61001"},
		{"of another scope", ofOne, 61002, ""},
		{"of a scope that has ended, outside", ofOne, 0, "61001"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var owners [2]string
			var errs [2]error
			run := func() error {
				owners[0], errs[0] = call(soon(t), test.client, s.file(test.name, "unary"))
				stream, err := test.client.NewStream(soon(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, streamMethod)
				if errs[1] = err; err == nil {
					owners[1], errs[1] = exchange(stream, s.file(test.name, "stream"))
				}
				return nil
			}
			if test.caller == 0 {
				callers.As(t, nil, run)
			} else {
				callers.As(t, callers.User(t, test.caller), run)
			}
			for i, err := range errs {
				if owners[i] != test.owner || errors.Is(err, guisegrpc.ErrInScope) != (test.owner == "") {
					t.Errorf("got %q, %v", owners[i], err)
				}
				if test.owner == "" && status.Code(err) != codes.FailedPrecondition {
					t.Errorf("the code is %v", status.Code(err))
				}
			}
		})
	}
}

func TestNewClientIsNotForScopes(t *testing.T) {
	callers.NeedRoot(t)
	callers.As(t, callers.User(t, 61001), func() error {
		client, err := guisegrpc.NewClient("pipe", nil)
		if err == nil {
			client.Close()
		}
		if !errors.Is(err, guisegrpc.ErrInScope) {
			t.Errorf("NewClient returns %v", err)
		}
		return nil
	})
}

// TestOneConnectionAndNoOther has the server end the connection that was dialled, and then one that the process may dial again.
func TestOneConnectionAndNoOther(t *testing.T) {
	callers.NeedRoot(t)
	dir := testdir.Open(t, 0o1777)
	pipe := filepath.Join(testdir.Open(t, 0o755), "pipe")
	start := func() *grpc.Server {
		l, err := guise.Listen(pipe, nil)
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(grpc.Creds(guisegrpc.NewServerCredentials()))
		server.RegisterService(&description, creator)
		go server.Serve(l)
		return server
	}
	server := start()
	s := &served{dir: dir, pipe: pipe}
	scoped := s.dial(t, callers.User(t, 61001), nil)
	process, err := guisegrpc.NewClient(pipe, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer process.Close()
	for _, client := range []*grpc.ClientConn{scoped, process} {
		if _, err := call(soon(t), client, s.file("before ", client == scoped)); err != nil {
			t.Fatal(err)
		}
	}
	server.Stop()
	server = start()
	defer server.Stop()
	for _, client := range []*grpc.ClientConn{scoped, process} {
		for client.GetState() == connectivity.Ready { // it has not seen the end yet
			client.WaitForStateChange(soon(t), connectivity.Ready)
		}
	}

	got, err := call(soon(t), scoped, s.file("after"))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), guisegrpc.ErrConnectionEnded.Error()) {
		t.Errorf("once its connection has ended, a call of 61001 is one of %q, %v", got, err)
	}
	// That it has been told of the server's end may have had it dial at once.
	got, err = retry(t, process, s.file("after"))
	if got != "0" || err != nil {
		t.Errorf("a call of the process is one of %q, %v", got, err)
	}
}

// retry waits for the connection.
func retry(t *testing.T, client *grpc.ClientConn, path string) (string, error) {
	answer := new(wrapperspb.StringValue)
	err := client.Invoke(soon(t), method, wrapperspb.String(path), answer, grpc.WaitForReady(true))
	return answer.Value, err
}

// otherDialer is a Dialer of somebody else's, which opens pipes as its QoS says.
type otherDialer struct{ qos guise.QoS }

func (o otherDialer) Dial(ctx context.Context, name string) (*guise.Conn, error) {
	return (&guise.Dialer{QoS: &o.qos}).Dial(ctx, name)
}

func TestDialRefuses(t *testing.T) {
	s := serve(t, nil, creator)
	messages, err := guise.Listen(filepath.Join(testdir.Open(t, 0o755), "messages"), &guise.ListenConfig{Message: true})
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Close()
	silent, err := guise.Listen(filepath.Join(testdir.Open(t, 0o755), "silent"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := silent.AcceptPipe()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	defer func() { silent.Close(); <-ended }()
	deaf, err := guise.Listen(filepath.Join(testdir.Open(t, 0o755), "deaf"), nil) // accepts nobody, so nobody says what is in force
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	wants := serve(t, &guise.ListenConfig{Level: guise.Impersonation}, creator)
	closed := serve(t, &guise.ListenConfig{Allow: func(*token.Token) error { return errors.New("nobody") }}, creator)
	for _, test := range []struct {
		name   string
		ctx    context.Context
		pipe   string
		dialer guisegrpc.Dialer
		want   error
		says   string
	}{
		{"dynamic tracking", soon(t), s.pipe, &guise.Dialer{QoS: &guise.QoS{Tracking: guise.Dynamic}}, guisegrpc.ErrDynamic, ""},
		{"another dialer's dynamic tracking", soon(t), s.pipe, otherDialer{guise.QoS{Tracking: guise.Dynamic}}, guisegrpc.ErrDynamic, ""},
		{"another dialer's unknown tracking", soon(t), deaf.Addr().String(), otherDialer{}, guisegrpc.ErrDynamic, ""},
		{"a pipe of messages", soon(t), messages.Addr().String(), nil, nil, "messages"},
		{"a pipe that is not there", soon(t), s.pipe + "-not", nil, guise.ErrNoPipe, ""},
		{"a server that wants more than is stated", soon(t), wants.pipe, &guise.Dialer{QoS: &guise.QoS{Level: guise.Identification}}, nil, "takes a higher level"},
		{"a server that lets nobody in", soon(t), closed.pipe, nil, nil, "let this client in"},
		{"a server that ends the connection", soon(t), silent.Addr().String(), nil, nil, "ended"},
		{"a call that is over", over, s.pipe, nil, context.Canceled, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, err := guisegrpc.Dial(test.ctx, test.pipe, test.dialer)
			if err == nil {
				client.Close()
				t.Fatal("the pipe was opened")
			}
			if test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got the error %v", err)
			}
		})
	}
}

func TestOptionsDoNotReplaceTheDialerOrTheCredentials(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator)
	callers.As(t, callers.User(t, 61001), func() error {
		client, err := guisegrpc.Dial(soon(t), s.pipe, nil, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, errors.New("called") }))
		if err != nil {
			return err
		}
		defer client.Close()
		got, err := call(soon(t), client, s.file("file"))
		if got != "61001" {
			t.Errorf("the call is one of %q", got)
		}
		return err
	})
}
