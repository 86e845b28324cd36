// Package network has look-ups, dialling and HTTP.
package network

import (
	"context"
	"crypto/tls"
	"database/sql"
	"log/syslog"
	"net"
	"net/http"
	"net/netip"
	"net/smtp"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisehttp"
	"github.com/guise-project/guise/token"
)

const local = "unix"

func names(ctx context.Context, t *token.Token, address string) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		_, _ = net.Dial("tcp", "files.example:445")      // want `^net\.Dial in a scope: look-ups and dialling may run on other goroutines, as the server; dial an address \(net\.DialTCP takes nothing else\) or a Unix socket's path$`
		_, _ = net.Dial("tcp", address)                  // want `net\.Dial in a scope`
		_, _ = net.DialTimeout("udp", "localhost:53", 0) // want `net\.DialTimeout in a scope`
		var d net.Dialer
		_, _ = d.Dial("tcp", "localhost:1")                        // want `net\.Dialer\.Dial in a scope`
		_, _ = d.DialContext(ctx, "tcp", "localhost:1")            // want `net\.Dialer\.DialContext in a scope`
		_, _ = tls.DialWithDialer(&d, "tcp", "localhost:443", nil) // want `tls\.DialWithDialer in a scope`
		_, _ = smtp.Dial("mail.example:25")                        // want `smtp\.Dial in a scope`
		_, _ = net.LookupHost("files.example")                     // want `net\.LookupHost in a scope: look-ups run on other goroutines, as the server; look the name up before the scope`
		_, _ = net.DefaultResolver.LookupIPAddr(ctx, "a")          // want `net\.Resolver\.LookupIPAddr in a scope`
		_, _ = net.ResolveTCPAddr("tcp", "localhost:1")            // want `net\.ResolveTCPAddr in a scope`
		_, _ = syslog.Dial("udp", address, 0, "")                  // want `syslog\.Dial in a scope`
		_, _ = syslog.Dial("", "", 0, "")                          // the machine's own
		_, _ = sql.Open("", "")                                    // want `sql\.Open in a scope`
		return nil
	})
}

func addresses(ctx context.Context, t *token.Token, network, address string, port netip.AddrPort, c net.Conn) error {
	_, _ = net.Dial("tcp", "localhost:1")
	return guise.RunAs(t, func(*guise.Scope) error {
		_, _ = net.Dial("unix", address)
		_, _ = net.Dial(local, address)
		_, _ = net.Dial(network, address) // may be unix
		_, _ = net.Dial("tcp", "127.0.0.1:1")
		_, _ = net.Dial("tcp", "[::1%lo]:1")
		_, _ = net.Dial("tcp", ":1")
		_, _ = net.Dial("tcp", port.String())
		_, _ = net.Dial("tcp", net.JoinHostPort("::1", address))
		var joined string
		joined = net.JoinHostPort(joined, "1")
		_, _ = net.Dial("tcp", joined) // want `net\.Dial in a scope`
		_, _ = net.Dial("tcp", c.RemoteAddr().String())
		_, _ = net.ResolveTCPAddr("tcp", "127.0.0.1:1")
		_, _ = net.ResolveUnixAddr("unix", address)
		_, _ = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(port))
		var d net.Dialer
		_, err := d.DialContext(ctx, "unix", address)
		return err
	})
}

func overHTTP(t *token.Token, request *http.Request, path string) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		_, _ = http.Get("http://files.example") // want `^http\.Get in a scope: its transport dials on goroutines of its own, as the server; dial in the scope and give a transport of its own the connection; over a pipe, use guisehttp\.Transport$`
		_, _ = http.DefaultClient.Do(request)   // want `http\.Client\.Do in a scope`
		c := &http.Client{Timeout: time.Second}
		_, _ = c.Do(request)                          // want `http\.Client\.Do in a scope`
		_, _ = (&http.Transport{}).RoundTrip(request) // want `http\.Transport\.RoundTrip in a scope`
		_ = http.ListenAndServe("127.0.0.1:1", nil)   // want `http\.ListenAndServe in a scope: it serves on goroutines of its own`
		late := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", path) // runs as the server
		}}}
		_, _ = late.Do(request) // want `http\.Client\.Do in a scope`
		var zero http.Client
		_, _ = zero.Do(request)                         // want `http\.Client\.Do in a scope`
		_, _ = http.DefaultTransport.RoundTrip(request) // want `http\.RoundTripper\.RoundTrip in a scope`
		return nil
	})
}

func overAConnectionOfTheScopes(t *token.Token, request *http.Request, path string) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return err
		}
		c := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return conn, nil
		}}}
		_, err = c.Do(request)
		return err
	})
}

func ofWhichNothingIsKnown(t *token.Token, request *http.Request, c *http.Client, pipe http.RoundTripper) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		_, _ = c.Do(request)
		_, _ = (&http.Client{Transport: pipe}).Do(request)
		set := &http.Client{}
		set.Transport = pipe
		var zero, filled http.Client
		zero.Transport = pipe
		_, _ = zero.Do(request)
		filled = *c
		_, _ = filled.Do(request)
		_, _ = pipe.RoundTrip(request)
		_, err := set.Do(request)
		return err
	})
}

func overGuiseItself(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		c := &http.Client{Transport: &guisehttp.Transport{Pipe: "files"}}
		_, err := c.Get("http://pipe/")
		return err
	})
}
