package guisehttp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisehttp"
	"github.com/guise-project/guise/internal/callers"
)

// ask writes a request for each path and then reads the answers.
func ask(t *testing.T, c io.ReadWriter, paths ...string) (statuses []int, bodies []string) {
	t.Helper()
	var requests strings.Builder
	for _, path := range paths {
		fmt.Fprintf(&requests, "GET %s HTTP/1.1\r\nHost: pipe\r\n\r\n", path)
	}
	if _, err := io.WriteString(c, requests.String()); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(c)
	for range paths {
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		statuses, bodies = append(statuses, response.StatusCode), append(bodies, string(body))
	}
	return statuses, bodies
}

func TestEveryRequestOfAConnectionIsThatOfWhoOpenedIt(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator, nil)
	c := s.dial(t, callers.User(t, 61001), nil)
	file := func(name string) string { return filepath.Join(s.dir, name) }

	// The first scope has ended, and the process writes; then somebody else does.
	statuses, owners := ask(t, c, file("first"))
	callers.As(t, callers.User(t, 61002), func() error {
		more, others := ask(t, c, file("one"), file("at"), file("once"))
		statuses, owners = append(statuses, more...), append(owners, others...)
		return nil
	})
	if got, want := fmt.Sprint(statuses, owners), "[200 200 200 200] [61001 61001 61001 61001]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections were made, want 1", n)
	}
}

func TestStreamsOfHTTP2AreThoseOfWhoOpenedTheConnection(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator, func(server *http.Server) {
		server.Protocols = new(http.Protocols)
		server.Protocols.SetUnencryptedHTTP2(true)
	})
	c := s.dial(t, callers.User(t, 61001), nil)
	client := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
		Protocols:   new(http.Protocols),
	}
	client.Protocols.SetUnencryptedHTTP2(true)
	defer client.CloseIdleConnections()
	request := func(i int) {
		r := httptest.NewRequest("GET", "http://pipe"+filepath.Join(s.dir, fmt.Sprint(i)), nil)
		response, err := client.RoundTrip(r)
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if got, want := fmt.Sprint(response.Proto, " ", response.StatusCode, " ", string(body), " ", err), "HTTP/2.0 200 61001 <nil>"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	request(0) // makes the connection that the others share
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() { request(1 + i) })
	}
	wait.Wait()
}

func TestDynamicTrackingIsRefused(t *testing.T) {
	callers.NeedDynamic(t)
	for _, test := range []struct {
		name     string
		listener guise.Tracking
		stated   *guise.QoS
		status   int
	}{
		{"stated by the client", guise.TrackingUnstated, &guise.QoS{Tracking: guise.Dynamic}, http.StatusMisdirectedRequest},
		{"preferred by the listener", guise.Dynamic, nil, http.StatusMisdirectedRequest},
		{"preferred by the listener, and the client states static", guise.Dynamic, &guise.QoS{Tracking: guise.Static}, http.StatusOK},
		{"nobody states any", guise.TrackingUnstated, nil, http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := make(chan error, 1)
			s := serve(t, &guise.ListenConfig{Tracking: test.listener}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := guisehttp.Conn(r)
				found <- err
				creator(w, r)
			}), nil)
			c := s.dial(t, nil, test.stated)
			file := filepath.Join(s.dir, "file")
			statuses, _ := ask(t, c, file)
			if statuses[0] != test.status {
				t.Errorf("the status is %d, want %d", statuses[0], test.status)
			}
			refused := test.status != http.StatusOK
			if err := <-found; errors.Is(err, guisehttp.ErrDynamic) != refused || !refused && err != nil {
				t.Errorf("Conn returns %v", err)
			}
			if _, err := os.Stat(file); (err == nil) == refused {
				t.Errorf("the file that was asked for: %v", err)
			}
		})
	}
}

// TestReadingAheadMovesADynamicContext shows what the refusal is for: what the connection would have done.
func TestReadingAheadMovesADynamicContext(t *testing.T) {
	callers.NeedDynamic(t)
	type bareKey struct{}
	owner := make(chan string, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/second" {
			return
		}
		bare := r.Context().Value(bareKey{}).(*guise.Conn)
		io.WriteString(w, "the first is being handled")
		http.NewResponseController(w).Flush()
		// net/http reads on meanwhile, and what comes is the other user's.
		for begun := time.Now(); time.Since(begun) < patience; time.Sleep(time.Millisecond) {
			if who, err := bare.Client(); err != nil || who.UID() == 61002 {
				break
			}
		}
		err := bare.RunAsClient(func(*guise.Scope) error {
			uid, err := callers.Create(r.URL.Path)
			owner <- uid
			return err
		})
		if err != nil {
			t.Error(err)
			owner <- ""
		}
	})
	s := serve(t, nil, handler, func(server *http.Server) {
		server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(guisehttp.ConnContext(ctx, c), bareKey{}, c)
		}
	})
	c := s.dial(t, nil, &guise.QoS{Tracking: guise.Dynamic})
	callers.As(t, callers.User(t, 61001), func() error {
		_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: pipe\r\n\r\n", filepath.Join(s.dir, "first"))
		return err
	})
	// The first is being handled once the head of its answer is there.
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	callers.As(t, callers.User(t, 61002), func() error {
		_, err := io.WriteString(c, "GET /second HTTP/1.1\r\nHost: pipe\r\n\r\n")
		return err
	})
	if uid := <-owner; uid != "61002" {
		t.Errorf("the request of 61001 was acted on as %s; if that is 61001, dynamic tracking need not be refused", uid)
	}
}

func TestRequestsWithoutAPipeAreRefused(t *testing.T) {
	s := serve(t, nil, http.NotFoundHandler(), nil)
	accepted := guisehttp.ConnContext(context.Background(), s.dial(t, nil, nil))
	other, end := net.Pipe()
	defer other.Close()
	defer end.Close()
	for _, test := range []struct {
		name string
		ctx  context.Context
	}{
		{"the server has no ConnContext", context.Background()},
		{"the connection is none of guise's", guisehttp.ConnContext(context.Background(), other)},
		{"the connection is none of guise's, and its context is derived from one that is", guisehttp.ConnContext(accepted, other)},
		{"the connection is wrapped", guisehttp.ConnContext(accepted, struct{ net.Conn }{other})},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil).WithContext(test.ctx)
			err := guisehttp.RunAsClient(r, func(*guise.Scope) error {
				t.Error("the function was called")
				return nil
			})
			if !errors.Is(err, guisehttp.ErrNoPipe) {
				t.Errorf("RunAsClient returns %v", err)
			}
			if c, err := guisehttp.FromContext(test.ctx); c != nil || !errors.Is(err, guisehttp.ErrNoPipe) {
				t.Errorf("FromContext returns %v, %v", c, err)
			}
		})
	}
}

func TestBeforeAnythingHasComeThereIsNoRequest(t *testing.T) {
	_, c := callers.Silent(t)
	r := httptest.NewRequest("GET", "/", nil).WithContext(guisehttp.ConnContext(context.Background(), c))
	if _, err := guisehttp.Conn(r); !errors.Is(err, guise.ErrNoDataRead) {
		t.Errorf("Conn returns %v", err)
	}
}

func TestContextOfARequestHasItsConnection(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context()) // as frameworks derive theirs
		defer cancel()
		c, err := guisehttp.FromContext(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		who, err := c.Client()
		fmt.Fprint(w, who.UID(), err)
	}), nil)
	if _, bodies := ask(t, s.dial(t, callers.User(t, 61001), nil), "/"); bodies[0] != "61001 <nil>" {
		t.Errorf("got %q", bodies[0])
	}
}

// TestRemoteAddrIsWhatTheClientSays shows why it is no identity.
func TestRemoteAddrIsWhatTheClientSays(t *testing.T) {
	s := serve(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) }), nil)
	t.Chdir(t.TempDir())
	const says = "127.0.0.1:1"
	c, err := net.DialUnix("unix", &net.UnixAddr{Net: "unix", Name: says}, &net.UnixAddr{Net: "unix", Name: s.pipe})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, bodies := ask(t, c, "/"); bodies[0] != says {
		t.Errorf("RemoteAddr is %q; if the client's text does not get there, the package comment is wrong", bodies[0])
	}
}

func TestHandlersHeedTheLevel(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, creator, nil)
	for _, level := range []guise.Level{guise.Anonymous, guise.Identification, guise.Impersonation} {
		t.Run(level.String(), func(t *testing.T) {
			c := s.dial(t, callers.User(t, 61001), &guise.QoS{Level: level})
			statuses, bodies := ask(t, c, filepath.Join(s.dir, level.String()))
			want := http.StatusForbidden
			if level == guise.Impersonation {
				want = http.StatusOK
			}
			if statuses[0] != want {
				t.Errorf("got %d %s, want %d", statuses[0], bodies[0], want)
			}
		})
	}
}

func TestOneClientDoesNotGetAnothersFile(t *testing.T) {
	callers.NeedRoot(t)
	reader := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var f *os.File
		err := guisehttp.RunAsClient(r, func(*guise.Scope) (err error) {
			f, err = os.Open(r.URL.Path)
			return err
		})
		if err != nil {
			http.Error(w, err.Error(), guisehttp.Status(err))
			return
		}
		defer f.Close()
		io.Copy(w, f)
	})
	s := serve(t, nil, reader, nil)
	file := filepath.Join(s.dir, "file")
	callers.As(t, callers.User(t, 61001), func() error { return os.WriteFile(file, []byte("mine"), 0o600) })
	for uid, want := range map[uint32]string{61001: "200 mine", 61002: "403 open " + file + ": permission denied\n"} {
		statuses, bodies := ask(t, s.dial(t, callers.User(t, uid), nil), file)
		if got := fmt.Sprint(statuses[0], " ", bodies[0]); got != want {
			t.Errorf("%d gets %q, want %q", uid, got, want)
		}
	}
}

func TestHijackedConnectionIsThePipe(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hijacked, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer hijacked.Close()
		owner := ""
		err = hijacked.(*guise.Conn).RunAsClient(func(*guise.Scope) (err error) {
			owner, err = callers.Create(r.URL.Path)
			return err
		})
		fmt.Fprint(buffered, owner, err)
		buffered.Flush()
	}), nil)
	c := s.dial(t, callers.User(t, 61001), nil)
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: pipe\r\n\r\n", filepath.Join(s.dir, "file"))
	if got, err := io.ReadAll(c); string(got) != "61001<nil>" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestPanicInAScopeLeavesIt(t *testing.T) {
	callers.NeedRoot(t)
	s := serve(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			fmt.Fprint(w, recover(), os.Geteuid())
		}()
		guisehttp.RunAsClient(r, func(*guise.Scope) error { panic("over ") })
	}), nil)
	if _, bodies := ask(t, s.dial(t, callers.User(t, 61001), nil), "/"); bodies[0] != "over 0" {
		t.Errorf("got %q", bodies[0])
	}
}
