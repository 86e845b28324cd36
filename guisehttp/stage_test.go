package guisehttp_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisehttp"
	"github.com/guise-project/guise/internal/callers"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

// served is an HTTP server on a pipe, with a directory that everybody may write to.
type served struct {
	dir, pipe string
	conns     atomic.Int32 // that were accepted
}

// serve serves until the end of the test. configure, if not nil, changes the server before.
func serve(t testing.TB, config *guise.ListenConfig, handler http.Handler, configure func(*http.Server)) *served {
	t.Helper()
	s := &served{dir: testdir.Open(t, 0o1777)}
	s.pipe = filepath.Join(testdir.Open(t, 0o755), "pipe")
	l, err := guise.Listen(s.pipe, config)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ConnContext: guisehttp.ConnContext, ConnState: func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}}
	if configure != nil {
		configure(server)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
	return s
}

// creator answers with who owns a file that it makes as the request's client, at the URL's path.
var creator = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	var owner string
	err := guisehttp.RunAsClient(r, func(*guise.Scope) (err error) {
		owner, err = callers.Create(r.URL.Path)
		return err
	})
	if err != nil {
		http.Error(w, err.Error(), guisehttp.Status(err))
		return
	}
	fmt.Fprint(w, owner)
})

// dial opens the pipe as who, in a scope of its own, nil being the process.
func (s *served) dial(t testing.TB, who *token.Token, qos *guise.QoS) *guise.Conn {
	t.Helper()
	var c *guise.Conn
	callers.As(t, who, func() (err error) {
		c, err = (&guise.Dialer{QoS: qos}).Dial(context.Background(), s.pipe)
		return err
	})
	if c == nil {
		t.FailNow()
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}
