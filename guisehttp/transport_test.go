package guisehttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisehttp"
	"github.com/guise-project/guise/internal/callers"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// get returns what the client gets.
func get(client *http.Client, path string) (string, error) {
	response, err := client.Get("http://pipe" + path)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func TestRequestsGoOutAsWhoMakesThem(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator, nil)
	client := &http.Client{Transport: &guisehttp.Transport{Pipe: s.pipe}}
	users := []*token.Token{callers.User(t, 61001), nil, callers.User(t, 61002), callers.User(t, 61003)}
	const rounds = 10
	var wait sync.WaitGroup
	for i, who := range users {
		wait.Go(func() {
			for round := range rounds {
				want := "0"
				if who != nil {
					want = fmt.Sprint(who.UID())
				}
				callers.As(t, who, func() error {
					got, err := get(client, filepath.Join(s.dir, fmt.Sprint(i, "-", round)))
					if got != want {
						t.Errorf("a request of %v is one of %q", who, got)
					}
					return err
				})
			}
		})
	}
	wait.Wait()
	if n := int(s.conns.Load()); n != rounds*len(users) {
		t.Errorf("%d requests went over %d connections", rounds*len(users), n)
	}
}

// TestPooledConnectionsAreTheProcesss shows what Transport is for: what http.Transport does in a scope.
func TestPooledConnectionsAreTheProcesss(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator, nil)
	pool := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&guise.Dialer{}).DialContext(ctx, "", s.pipe)
	}}
	defer pool.CloseIdleConnections()
	callers.As(t, callers.User(t, 61001), func() error {
		got, err := get(&http.Client{Transport: pool}, filepath.Join(s.dir, "file"))
		if got != "0" {
			t.Errorf("the request was one of %s; if http.Transport dials on its caller's goroutine, the package comment is wrong", got)
		}
		return err
	})
}

func TestBodiesMayBeReadOutsideOfTheScope(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := guisehttp.Conn(r)
		if err != nil {
			t.Error(err)
			return
		}
		who, err := c.Client()
		fmt.Fprintln(w, who.UID(), err)
		io.Copy(w, r.Body)
	}), nil)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	var response *http.Response
	callers.As(t, callers.User(t, 61001), func() (err error) {
		client := &http.Client{Transport: &guisehttp.Transport{Pipe: s.pipe}}
		response, err = client.Post("http://pipe/", "", bytes.NewReader(sent))
		return err
	})
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if want := append([]byte("61001 <nil>\n"), sent...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes that begin with %q and %v, want %d", len(got), got[:min(len(got), 20)], err, len(want))
	}
}

func TestProxyForwardsEachRequestAsItsCaller(t *testing.T) {
	callers.NeedRoot(t)
	behind := serve(t, nil, creator, nil)
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "behind"}) },
		Transport: &guisehttp.Transport{Pipe: behind.pipe},
	}
	front := serve(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := guisehttp.RunAsClient(r, func(*guise.Scope) error { proxy.ServeHTTP(w, r); return nil }); err != nil {
			t.Error(err)
		}
	}), nil)
	for _, uid := range []uint32{61001, 61002} {
		c := front.dial(t, callers.User(t, uid), nil)
		_, owners := ask(t, c, filepath.Join(behind.dir, fmt.Sprint(uid)))
		_, again := ask(t, c, filepath.Join(behind.dir, fmt.Sprint(uid, "-again")))
		if want := fmt.Sprint(uid); owners[0] != want || again[0] != want {
			t.Errorf("the requests of %s are those of %s and %s", want, owners[0], again[0])
		}
	}
}

// watched is a request's body that knows whether it was closed.
type watched struct {
	io.Reader
	closed atomic.Bool
}

func (w *watched) Close() error { w.closed.Store(true); return nil }

// otherDialer is a Dialer of somebody else's, which opens pipes as its QoS says.
type otherDialer struct{ qos guise.QoS }

func (o otherDialer) Dial(ctx context.Context, name string) (*guise.Conn, error) {
	return (&guise.Dialer{QoS: &o.qos}).Dial(ctx, name)
}

func TestTransportRefuses(t *testing.T) {
	s := serve(t, nil, http.NotFoundHandler(), nil)
	messages, err := guise.Listen(filepath.Join(testdir.Open(t, 0o755), "messages"), &guise.ListenConfig{Message: true})
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Close()
	deaf, err := guise.Listen(filepath.Join(testdir.Open(t, 0o755), "deaf"), nil) // accepts nobody, so nobody says what is in force
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	ctx := context.Background()
	for _, test := range []struct {
		name      string
		ctx       context.Context
		transport *guisehttp.Transport
		url       string
		want      error
		says      string
	}{
		{"dynamic tracking", ctx, &guisehttp.Transport{Pipe: s.pipe, Dialer: &guise.Dialer{QoS: &guise.QoS{Tracking: guise.Dynamic}}}, "http://pipe", guisehttp.ErrDynamic, ""},
		{"another dialer's dynamic tracking", ctx, &guisehttp.Transport{Pipe: s.pipe, Dialer: otherDialer{guise.QoS{Tracking: guise.Dynamic}}}, "http://pipe", guisehttp.ErrDynamic, ""},
		{"another dialer's unknown tracking", ctx, &guisehttp.Transport{Pipe: deaf.Addr().String(), Dialer: otherDialer{}}, "http://pipe", guisehttp.ErrDynamic, ""},
		{"TLS", ctx, &guisehttp.Transport{Pipe: s.pipe}, "https://pipe", nil, "http://"},
		{"a pipe of messages", ctx, &guisehttp.Transport{Pipe: messages.Addr().String()}, "http://pipe", nil, "messages"},
		{"a pipe that is not there", ctx, &guisehttp.Transport{Pipe: s.pipe + "-not"}, "http://pipe", guise.ErrNoPipe, ""},
		{"a request that is over", over, &guisehttp.Transport{Pipe: s.pipe}, "http://pipe", context.Canceled, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := &watched{Reader: strings.NewReader("x")}
			r := httptest.NewRequestWithContext(test.ctx, "PUT", test.url, body)
			response, err := test.transport.RoundTrip(r)
			if err == nil {
				response.Body.Close()
				t.Fatal("the request was sent")
			}
			if test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got the error %v", err)
			}
			if !body.closed.Load() {
				t.Error("the body was left open")
			}
		})
	}
	if n := s.conns.Load(); n > 1 { // another dialer's tracking is known once the connection is there
		t.Errorf("%d connections were made", n)
	}
}

func TestTransportStatesWhatItsDialerDoes(t *testing.T) {
	callers.NeedDynamic(t) // where the listener's preference would count
	s := serve(t, &guise.ListenConfig{Tracking: guise.Dynamic}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := guisehttp.Conn(r)
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(w, c.QoS())
	}), nil)
	stated := &guise.QoS{Level: guise.Identification}
	for want, dialer := range map[string]guisehttp.Dialer{
		fmt.Sprint(guise.QoS{Level: guise.Impersonation, Tracking: guise.Static}):  nil,
		fmt.Sprint(guise.QoS{Level: guise.Identification, Tracking: guise.Static}): &guise.Dialer{QoS: stated},
	} {
		got, err := get(&http.Client{Transport: &guisehttp.Transport{Pipe: s.pipe, Dialer: dialer}}, "/")
		if got != want || err != nil {
			t.Errorf("the server has %s, %v, want %s", got, err, want)
		}
	}
	if stated.Tracking != guise.TrackingUnstated {
		t.Error("the caller's QoS was changed")
	}
}
