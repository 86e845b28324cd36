package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
)

// chunk is the most that is read at once, and so the longest message that is sent; networkChunk is that between machines.
const (
	chunk        = 64 << 10
	networkChunk = chunk - 1
)

// transfer sends in to the server and writes what comes to out, until the server has closed the pipe. A server that has only
// closed its sending side is sent the rest of the input.
func transfer(conn *guise.Conn, in io.Reader, out io.Writer) error {
	s := &sender{conn: conn, done: make(chan struct{})}
	go s.send(in)

	if err := receive(conn, out); err != nil {
		if errors.Is(err, net.ErrClosed) {
			return s.result() // it was the sender that gave up
		}
		return err
	}
	hungUp := make(chan error, 1)
	go func() { hungUp <- waitHangUp(conn) }()
	select {
	case <-s.done:
	case err := <-hungUp:
		if err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		// Input may never end: the sender, waiting for it, is left behind.
	}
	return s.result()
}

// sender sends the input.
type sender struct {
	conn *guise.Conn
	done chan struct{}
	mu   sync.Mutex // held while there is input that has not been sent
	err  error
}

func (s *sender) send(in io.Reader) {
	defer close(s.done)
	buf := make([]byte, chunk)
	if _, here := s.conn.RemoteAddr().(*net.UnixAddr); !here && s.conn.Message() {
		buf = buf[:networkChunk]
	}
	for {
		n, readErr := in.Read(buf)
		if n > 0 && !s.sendSome(buf[:n]) {
			return
		}
		switch readErr {
		case nil:
		case io.EOF:
			_ = s.conn.CloseWrite() // it can only fail where the server has gone, which reading shows
			return
		default:
			s.giveUp(fmt.Errorf("reading standard input: %w", readErr))
			return
		}
	}
}

func (s *sender) sendSome(b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.conn.Write(b)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		err = fmt.Errorf("%w: %w", errEndedEarly, err)
	}
	s.err = err
	return err == nil
}

// giveUp ends the connection: the server must not take a failure for the end of the input.
func (s *sender) giveUp(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	s.conn.Close()
}

// result returns how sending went so far. It waits for a write that is under way.
func (s *sender) result() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func receive(conn *guise.Conn, out io.Writer) error {
	buf := make([]byte, chunk)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if _, err := out.Write(buf[:n]); err != nil {
				return fmt.Errorf("writing standard output: %w", err)
			}
		}
		switch {
		case err == nil, errors.Is(err, guise.ErrMoreData):
		case err == io.EOF:
			return nil
		case errors.Is(err, unix.ECONNRESET):
			return fmt.Errorf("%w: %w", errEndedEarly, err)
		default:
			return err
		}
	}
}

// waitHangUp waits until no more can be sent either, after the end was read.
func waitHangUp(conn *guise.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		return err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
}
