package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
)

// relay passes messages between a client of another machine, where smbd puts a length before each, and a command, which has a pipe of
// messages as on this machine.
type relay struct {
	conn      *guise.Conn
	ours      *guise.Conn // this side of the command's pipe
	passed    func()      // is called for each message
	toClient  sync.WaitGroup
	toCommand sync.WaitGroup
}

// startRelay returns the command's end.
func startRelay(conn *guise.Conn, passed func()) (*os.File, *relay, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making the command's pipe: %w", err)
	}
	theirs, near := os.NewFile(uintptr(pair[0]), conn.Name()), os.NewFile(uintptr(pair[1]), conn.Name())
	socket, err := net.FileConn(near)
	near.Close()
	var ours *guise.Conn
	if err == nil {
		ours, err = guise.Carried(conn.Name(), guise.Carriage{
			Socket: socket.(*net.UnixConn), Message: true, LongestMessage: chunk, Why: func() error { return nil },
		})
	}
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("making the command's pipe: %w", err)
	}
	r := &relay{conn: conn, ours: ours, passed: passed}
	r.toClient.Go(func() {
		r.relayMessages(r.conn, r.ours)
		// The client reads the end.
		_ = r.conn.CloseWrite()
	})
	r.toCommand.Go(func() {
		r.relayMessages(r.ours, r.conn)
		_ = r.ours.CloseWrite()
	})
	return theirs, r, nil
}

// finish ends the relay once the command has ended. What that has written is still passed on, if the client
// reads it soon.
func (r *relay) finish() {
	if r == nil {
		return
	}
	_ = r.ours.CloseRead()
	_ = r.conn.SetWriteDeadline(time.Now().Add(flushTime))
	r.toClient.Wait()
	// Of what the client still sends the command reads no more, though a child of it may have its end open.
	_ = r.conn.SetReadDeadline(time.Unix(1, 0))
	_ = r.ours.SetWriteDeadline(time.Unix(1, 0))
	r.toCommand.Wait()
	r.ours.Close()
}

// relayMessages passes messages on until one side ends. An empty one of the command's can't be.
func (r *relay) relayMessages(to io.Writer, from io.Reader) {
	buf := make([]byte, chunk)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if n == 0 {
			continue
		}
		r.passed()
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		r.passed()
	}
}
