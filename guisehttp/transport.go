package guisehttp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/statictracking"
)

// Dialer opens pipes: a [*guise.Dialer], or the Dialer of package smb for those of other machines.
type Dialer interface {
	Dial(ctx context.Context, name string) (*guise.Conn, error)
}

// Transport is an [http.RoundTripper] that sends requests on a pipe, as who calls RoundTrip. It may be used by many goroutines and in many
// scopes at once.
//
// Each request opens the pipe on the calling goroutine, in the scope that this is in if it is in one, and has the connection for
// itself: it is closed with the response's body, and never kept. So no request goes out on a connection of somebody else's, at the
// price of an open per request. Once it is sent, the body may be read outside of the scope.
//
// http.Client calls RoundTrip on its caller's goroutine, and so does httputil.ReverseProxy, also for redirects; a ReverseProxy with
// a Transport that is run in a scope of its caller (around ServeHTTP) forwards each request as its caller. That scope holds a thread until
// the answer has been passed on, as long as the caller likes: bound how many there are. A goroutine that was started with a go statement is
// the process, here as anywhere else.
//
// What an http.Client keeps is for all who use it: with a Jar, one caller's cookies go out with another's requests.
//
// Requests go to the pipe whatever host their URL names. Its scheme has to be http: no TLS goes over a pipe.
type Transport struct {
	// Pipe is the pipe's name or path.
	Pipe string
	// Dialer opens the pipe; nil is a [guise.Dialer] that states nothing but static tracking. It must not ask for dynamic tracking
	// ([ErrDynamic]): where a guise.Dialer says nothing of it, static tracking is stated.
	Dialer Dialer
}

// RoundTrip sends a request and returns its response; see [http.RoundTripper]. Errors of opening the pipe are those of the Dialer.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	c, err := t.open(r)
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	response, err := single(c).RoundTrip(r)
	if err != nil {
		c.Close() // it may not have been asked for
		return nil, err
	}
	return response, nil
}

func (t *Transport) open(r *http.Request) (*guise.Conn, error) {
	if r.URL == nil || r.URL.Scheme != "http" {
		return nil, fmt.Errorf("guisehttp: only URLs that begin with http:// can be asked for on a pipe, not %v", r.URL)
	}
	d, ok := statictracking.Stated(t.Dialer)
	if !ok {
		return nil, ErrDynamic
	}
	c, err := d.Dial(r.Context(), t.Pipe)
	if err != nil {
		return nil, err
	}
	switch {
	case c.QoS().Tracking != guise.Static: // some other Dialer's
		err = ErrDynamic
	case c.Message():
		err = fmt.Errorf("guisehttp: %s is a pipe of messages, and HTTP takes one of bytes", t.Pipe)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

var errUsed = errors.New("guisehttp: the connection was for one request")

// single returns a transport for one request. It dials on goroutines that are the process, so it gets the one connection that there is.
func single(c *guise.Conn) *http.Transport {
	var used atomic.Bool
	return &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errUsed
			}
			return c, nil
		},
		DisableKeepAlives:  true,
		DisableCompression: true, // the other end is on this machine
	}
}
