package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
)

// echoed is how many bytes go there and back.
const echoed = 64

// An echoKind is a way to make a connection: the net package's, or guise's with a tracking that the client states.
type echoKind struct {
	network  string // unix or unixpacket
	tracking guise.Tracking
	plain    bool // net.UnixConn
}

func echoKinds(network string) []echoKind {
	return []echoKind{
		{network: network, plain: true},
		{network: network, tracking: guise.Static},
		{network: network, tracking: guise.Dynamic},
	}
}

func (k echoKind) listen(path string) (net.Listener, error) {
	if k.plain {
		return net.Listen(k.network, path)
	}
	return guise.Listen(path, &guise.ListenConfig{Message: k.network == "unixpacket", MaxPerUser: 1 << 20})
}

func (k echoKind) dial(path string) (net.Conn, error) {
	if k.plain {
		return net.Dial(k.network, path)
	}
	return guise.Dial(path, &guise.QoS{Level: guise.Impersonation, Tracking: k.tracking})
}

func (k echoKind) name() string {
	if k.plain {
		return k.network + "-net"
	}
	return k.network + "-" + k.tracking.String()
}

// measureEcho is the role of a process that measures echoes. Its arguments are a directory for the sockets, and where the
// echoing end is: "goroutine" or "process".
func measureEcho(args []string) error {
	dir, where := args[0], args[1]
	var rows []ratio.Row
	for _, network := range []string{"unix", "unixpacket"} {
		var sides []ratio.Side
		for _, k := range echoKinds(network) {
			path := filepath.Join(dir, where+"-"+k.name())
			end, err := startEcho(k, path, where)
			if err != nil {
				return err
			}
			defer end()
			c, err := k.dial(path)
			if err != nil {
				return err
			}
			defer c.Close()
			sides = append(sides, roundTrips(c))
		}
		const rounds, n = 500, 200
		t := ratio.Alternate(rounds, n, sides...)
		static, dynamic := float64(ratio.Information), float64(ratio.Information)
		what := "bytes"
		if network == "unixpacket" {
			what = "messages (net: unixpacket)"
		} else if where == "goroutine" {
			static, dynamic = 1.05, 1.30
		}
		within := "two goroutines"
		if where == "process" {
			within = "two processes"
		}
		rows = append(rows,
			ratio.Compare(fmt.Sprintf("%d B echo static : net.UnixConn, %s, %s", echoed, what, within), static, t[1], t[0], "µs"),
			ratio.Compare(fmt.Sprintf("%d B echo dynamic : net.UnixConn, %s, %s", echoed, what, within), dynamic, t[2], t[0], "µs"))
	}
	return ratio.Print(rows)
}

// startEcho listens on path and echoes what the one client sends, here or in a process of its own.
func startEcho(k echoKind, path, where string) (end func(), err error) {
	if where == "process" {
		p, err := role.Start(nil, nil, "echo-server", path, k.network, strconv.FormatBool(k.plain))
		if err != nil {
			return nil, err
		}
		_, err = p.Line()
		return func() { p.Stop() }, err
	}
	l, err := k.listen(path)
	if err != nil {
		return nil, err
	}
	go echoOne(l)
	return func() { l.Close() }, nil
}

// serveEcho is the role of an echoing process.
func serveEcho(args []string) error {
	plain, err := strconv.ParseBool(args[2])
	if err != nil {
		return err
	}
	k := echoKind{network: args[1], plain: plain} // the tracking is the client's to state
	l, err := k.listen(args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("listening")
	go echoOne(l)
	role.AwaitEnd()
	return nil
}

func echoOne(l net.Listener) {
	c, err := l.Accept()
	if err != nil {
		return
	}
	echo(c, echoed)
}

// echo sends back what comes, at most size bytes at once, until there is no more.
func echo(c net.Conn, size int) {
	defer c.Close()
	buf := make([]byte, size)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func roundTrips(c net.Conn) ratio.Side {
	buf := make([]byte, echoed)
	return func(n int) {
		for range n {
			if _, err := c.Write(buf); err != nil {
				role.Fatal(err)
			}
			if _, err := io.ReadFull(c, buf); err != nil {
				role.Fatal(err)
			}
		}
	}
}
