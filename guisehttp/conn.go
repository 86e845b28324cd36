package guisehttp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/guise-project/guise"
)

var (
	// ErrNoPipe: the request did not come on a pipe, or nobody has said on which.
	ErrNoPipe = errors.New("guisehttp: the request has no pipe; is ConnContext the Server's, and the Listener served as it is?")
	// ErrDynamic: tracking is dynamic. HTTP reads ahead of what is being handled, and the context with it.
	ErrDynamic = errors.New("guisehttp: no dynamic tracking over HTTP: the context would not be that of the request; state static tracking")
)

type connKey struct{}

// ConnContext is for [http.Server.ConnContext]: it lets [Conn] find the connection of a request. A function of one's own calls it
// with the connection that it was called with.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	// Where c is something else, nil hides the connection of a context that this one was derived from.
	pipe, _ := c.(*guise.Conn)
	return context.WithValue(ctx, connKey{}, pipe)
}

// Conn returns the connection that a server's request came on: who its client is, and on what terms. It is the HTTP server's: it must not
// be read from, written to or closed, unless it was hijacked.
//
// The error wraps [ErrNoPipe] or [ErrDynamic]. It may be called from any goroutine, also when the request has been handled.
func Conn(r *http.Request) (*guise.Conn, error) { return FromContext(r.Context()) }

// FromContext is [Conn] for code that has the request's context and no more, such as a webdav.FileSystem or the handlers of an RPC
// framework. With the connection [guise.Conn.RunAsClient] acts as the client.
func FromContext(ctx context.Context) (*guise.Conn, error) {
	c, _ := ctx.Value(connKey{}).(*guise.Conn)
	if c == nil {
		return nil, ErrNoPipe
	}
	switch c.QoS().Tracking {
	case guise.Static: // once it is, it stays
		return c, nil
	case guise.Dynamic:
		return nil, fmt.Errorf("%s: %w", c.Name(), ErrDynamic)
	}
	return nil, fmt.Errorf("%s: %w", c.Name(), guise.ErrNoDataRead)
}

// RunAsClient calls fn on the calling goroutine, as who opened the connection of the request: see [guise.Conn.RunAsClient]. Where
// that can't be, or [Conn] returns an error, fn is not called.
func RunAsClient(r *http.Request, fn func(*guise.Scope) error) error {
	c, err := Conn(r)
	if err != nil {
		return err
	}
	return c.RunAsClient(fn)
}
