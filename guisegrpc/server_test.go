package guisegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisegrpc"
	"github.com/guise-project/guise/internal/callers"
	"github.com/guise-project/guise/internal/testdir"
)

func TestCallsAreActedOnAsWhoOpenedTheConnection(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator)
	for _, uid := range []uint32{61001, 61002} {
		client := s.dial(t, callers.User(t, uid), nil)
		for i := range 3 {
			if got, err := call(soon(t), client, s.file(uid, "-", i)); got != fmt.Sprint(uid) || err != nil {
				t.Errorf("a call of %d is one of %q, %v", uid, got, err)
			}
		}
	}
}

// TestProgramsThatDoNotKnowGuiseCall has a client that is gRPC's alone.
func TestProgramsThatDoNotKnowGuiseCall(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator)
	client, err := grpc.NewClient("unix:"+s.pipe, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if got, err := call(soon(t), client, s.file("file")); got != "0" || err != nil {
		t.Errorf("the call is one of %q, %v", got, err)
	}
}

func TestInterceptorRunsHandlersAsTheirCallers(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, func(_ context.Context, path string) (string, error) {
		owner, err := callers.Create(path)
		if err != nil {
			err = status.Error(guisegrpc.Code(err), "not made")
		}
		return owner, err
	}, grpc.UnaryInterceptor(guisegrpc.UnaryAsClient))
	for _, test := range []struct {
		name string
		qos  guise.QoS
		path string
		want string
		code codes.Code
	}{
		{"as who calls", guise.QoS{}, s.file("made"), "61001", codes.OK},
		{"with the caller's rights", guise.QoS{}, filepath.Join(testdir.Open(t, 0o755), "file"), "", codes.PermissionDenied},
		{"not where the caller does not allow it", guise.QoS{Level: guise.Identification}, s.file("too little"), "", codes.PermissionDenied},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := s.dial(t, callers.User(t, 61001), &guise.Dialer{QoS: &test.qos})
			got, err := call(soon(t), client, test.path)
			if got != test.want || status.Code(err) != test.code {
				t.Errorf("got %q, %v", got, err)
			}
			if _, err := os.Stat(test.path); (err == nil) != (test.code == codes.OK) {
				t.Errorf("the file: %v", err)
			}
		})
	}
}

func TestDynamicTrackingIsRefused(t *testing.T) {
	callers.NeedDynamic(t)
	for _, test := range []struct {
		name     string
		listener guise.Tracking
		stated   *guise.QoS
		refused  bool
	}{
		{"stated by the client", guise.TrackingUnstated, &guise.QoS{Tracking: guise.Dynamic}, true},
		{"preferred by the listener", guise.Dynamic, nil, true},
		{"preferred by the listener, and the client states static", guise.Dynamic, &guise.QoS{Tracking: guise.Static}, false},
		{"nobody states any", guise.TrackingUnstated, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, &guise.ListenConfig{Tracking: test.listener}, creator)
			// A client of gRPC's, whose side does not look.
			client, err := grpc.NewClient("passthrough:///pipe", grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
					return (&guise.Dialer{QoS: test.stated}).DialContext(ctx, "", s.pipe)
				}))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, err = call(soon(t), client, s.file("file"))
			if refused := status.Code(err) == codes.Unavailable; refused != test.refused || !refused && err != nil {
				t.Errorf("the call ended with %v", err)
			}
			if _, err := os.Stat(s.file("file")); (err == nil) == test.refused {
				t.Errorf("the file that was asked for: %v", err)
			}
		})
	}
}

func TestHandshakeTakesPipesOfBytesAlone(t *testing.T) {
	callers.NeedDynamic(t)
	one, other := net.Pipe()
	defer one.Close()
	defer other.Close()
	for _, test := range []struct {
		name string
		raw  func(server bool) net.Conn
		want error
	}{
		{"a connection that is none of guise's", func(bool) net.Conn { return one }, guisegrpc.ErrNoPipe},
		{"a wrapped one", func(server bool) net.Conn {
			return struct{ net.Conn }{accepted(t, nil, &guise.QoS{Tracking: guise.Static}, server)}
		}, guisegrpc.ErrNoPipe},
		{"dynamic tracking", func(server bool) net.Conn { return accepted(t, nil, &guise.QoS{Tracking: guise.Dynamic}, server) }, guisegrpc.ErrDynamic},
		{"messages", func(server bool) net.Conn {
			return accepted(t, &guise.ListenConfig{Message: true}, &guise.QoS{Tracking: guise.Static}, server)
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := guisegrpc.NewServerCredentials().ServerHandshake(test.raw(true))
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("the server's handshake ends with %v", err)
			}
			_, _, err = guisegrpc.NewServerCredentials().ClientHandshake(soon(t), "", test.raw(false))
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("the client's handshake ends with %v", err)
			}
		})
	}
}

// accepted returns one end of a connection.
func accepted(t *testing.T, config *guise.ListenConfig, qos *guise.QoS, server bool) net.Conn {
	t.Helper()
	l, err := guise.Listen(filepath.Join(testdir.Open(t, 0o755), "pipe"), config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := guise.Dial(l.Addr().String(), qos)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	c, err := l.AcceptPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if server {
		return c
	}
	return near
}

func TestHandshakeWaitsForTheClientsFirstWord(t *testing.T) {
	for _, speaks := range []bool{true, false} {
		t.Run(fmt.Sprintf("speaks=%v", speaks), func(t *testing.T) {
			bare, c := callers.Silent(t)
			c.SetDeadline(time.Now().Add(20 * time.Second))
			ended := make(chan error)
			go func() {
				_, _, err := guisegrpc.NewServerCredentials().ServerHandshake(c)
				ended <- err
			}()
			if speaks {
				io.WriteString(bare, "PRI")
			} else {
				c.SetDeadline(time.Unix(1, 0)) // as the server's, when it is over
			}
			if err := <-ended; speaks != (err == nil) || !speaks && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the handshake ends with %v", err)
			}
		})
	}
}

func TestContextsWithoutAPipeAreRefused(t *testing.T) {
	ctx := context.Background()
	for name, ctx := range map[string]context.Context{
		"none of a call":          ctx,
		"no credentials":          peer.NewContext(ctx, &peer.Peer{}),
		"somebody else's":         peer.NewContext(ctx, &peer.Peer{AuthInfo: credentials.TLSInfo{}}),
		"ours with nothing in it": peer.NewContext(ctx, &peer.Peer{AuthInfo: guisegrpc.AuthInfo{}}),
	} {
		t.Run(name, func(t *testing.T) {
			err := guisegrpc.RunAsClient(ctx, func(*guise.Scope) error {
				t.Error("the function was called")
				return nil
			})
			if !errors.Is(err, guisegrpc.ErrNoPipe) {
				t.Errorf("RunAsClient returns %v", err)
			}
		})
	}
}

func TestConnectionsOfThisMachineAreSecure(t *testing.T) {
	s := serve(t, nil, func(ctx context.Context, _ string) (string, error) {
		p, _ := peer.FromContext(ctx)
		info := p.AuthInfo.(guisegrpc.AuthInfo)
		return fmt.Sprint(info.AuthType(), " ", info.SecurityLevel, " ", info.Conn.QoS()), credentials.CheckSecurityLevel(info, credentials.PrivacyAndIntegrity)
	})
	client := s.dial(t, nil, nil)
	got, err := call(soon(t), client, "")
	if want := fmt.Sprint("guise ", credentials.PrivacyAndIntegrity, " ", guise.QoS{Level: guise.Impersonation, Tracking: guise.Static}); got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestCallsMayNameAnyAuthority(t *testing.T) {
	s := serve(t, nil, func(ctx context.Context, _ string) (string, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return fmt.Sprint(md[":authority"]), nil
	})
	client := s.dial(t, nil, nil)
	answer := new(wrapperspb.StringValue)
	for want, options := range map[string][]grpc.CallOption{
		"[localhost]": nil,
		"[files]":     {grpc.CallAuthority("files")},
	} {
		if err := client.Invoke(soon(t), method, wrapperspb.String(""), answer, options...); answer.Value != want || err != nil {
			t.Errorf("got %q, %v, want %q", answer.Value, err, want)
		}
	}
}

func TestStreamsAreThoseOfWhoOpenedTheConnection(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator)
	client := s.dial(t, callers.User(t, 61001), nil)
	stream, err := client.NewStream(soon(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, streamMethod)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if got, err := exchange(stream, s.file(i)); got != "61001" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
	stream.CloseSend()
	if err := stream.RecvMsg(nil); err != io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
}
