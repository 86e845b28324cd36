package guise_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
)

// seesEnd reports whether smbd sees that the daemon has closed the pipe, or its writing side.
func (s *smbd) seesEnd() bool {
	s.t.Helper()
	raw, err := s.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	p := []unix.PollFd{{Events: unix.POLLRDHUP}}
	err = raw.Control(func(fd uintptr) {
		p[0].Fd = int32(fd)
		_, err = unix.Poll(p, 0)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
}

// TestEndComesAfterAllWasTaken: smbd forgets what it has just read if it sees the end at the same time.
func TestEndComesAfterAllWasTaken(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		name string
		end  func(*guise.Conn) error
	}{
		{"Close", (*guise.Conn).Close},
		{"CloseWrite", (*guise.Conn).CloseWrite},
		{"CloseWrite and Close", func(c *guise.Conn) error { return errors.Join(c.CloseWrite(), c.Close()) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, path := published(t, guise.ListenConfig{})
			s := open(t, path, told(t, "level7-ntlm", 61001))
			c := acceptUnread(t, l)
			if _, err := c.Write([]byte("answer")); err != nil {
				t.Fatal(err)
			}
			if err := test.end(c); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 1)
			for range len("answer") {
				if s.seesEnd() {
					t.Fatal("smbd sees the end before it has read everything")
				}
				if _, err := io.ReadFull(s, b); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "smbd sees the end", func() (string, bool) { return "it doesn't", s.seesEnd() })
			if n, err := s.Read(b); n != 0 || err != io.EOF {
				t.Errorf("at the end smbd reads %d bytes, %v", n, err)
			}
		})
	}
}

func TestClosedConnectionFromAnotherMachineIsClosed(t *testing.T) {
	needRoot(t)
	l, path := published(t, guise.ListenConfig{})
	s := open(t, path, told(t, "level7-ntlm", 61001))
	c := acceptUnread(t, l)
	c.Write([]byte("answer"))
	waiting := make(chan error, 1)
	go func() { _, err := c.Read(make([]byte, 1)); waiting <- err }()
	c.Close()
	if err := inTime(t, "a read ends that waits when the connection is closed", waiting); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read that waited: %v", err)
	}
	s.Write([]byte("more"))
	for name, try := range map[string]func() error{
		"Read":        func() error { _, err := c.Read(make([]byte, 1)); return err },
		"Write":       func() error { _, err := c.Write([]byte("x")); return err },
		"SetDeadline": func() error { return c.SetDeadline(time.Time{}) },
		"SetReadDeadline": func() error {
			return errors.Join(c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Time{}))
		},
		"Close": c.Close,
	} {
		if err := try(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s of a closed connection: %v", name, err)
		}
	}
	// smbd's client goes away without reading.
	s.Close()
}

func TestFlush(t *testing.T) {
	needRoot(t)
	l, path := published(t, guise.ListenConfig{})
	s := open(t, path, told(t, "level7-ntlm", 61001))
	fromThere := acceptUnread(t, l)
	near, err := guise.Dial(l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	writes(t, near)
	here := accept(t, l)
	for _, test := range []struct {
		name   string
		server *guise.Conn
		client net.Conn
	}{{"another machine", fromThere, s}, {"this machine", here, near}} {
		t.Run(test.name, func(t *testing.T) {
			if err := test.server.Flush(t.Context()); err != nil {
				t.Errorf("with nothing written: %v", err)
			}
			writes(t, test.server)
			soon, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if err := test.server.Flush(soon); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with something that nobody has read: %v", err)
			}
			flushed := make(chan error, 1)
			go func() { flushed <- test.server.Flush(context.Background()) }()
			if _, err := io.ReadFull(test.client, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if err := inTime(t, "Flush ends once all has been read", flushed); err != nil {
				t.Errorf("once all has been read: %v", err)
			}
			writes(t, test.server)
			go func() { flushed <- test.server.Flush(context.Background()) }()
			test.client.Close()
			if err := inTime(t, "Flush ends once the other end has gone", flushed); err != nil {
				t.Errorf("once the other end has gone: %v", err)
			}
		})
	}
}

// TestClosedConnectionsOfOneMachineLeaveRoomForOthers: whoever does not read takes nobody else's answer away.
func TestClosedConnectionsOfOneMachineLeaveRoomForOthers(t *testing.T) {
	needRoot(t)
	l, path := published(t, guise.ListenConfig{})
	answered := func(sample string) *smbd {
		s := open(t, path, told(t, sample, 61001))
		c := acceptUnread(t, l)
		writes(t, c)
		c.Close()
		return s
	}
	var crowd []*smbd
	for range guise.MostLingeringOne {
		crowd = append(crowd, answered("level7-ntlm"))
	}
	for _, s := range crowd {
		if s.seesEnd() {
			t.Fatal("a client's pipe has ended before it was read")
		}
	}
	if !answered("level7-ntlm").seesEnd() {
		t.Error("more closed connections of one machine wait than may")
	}
	if answered("level7-ntlm-ipv6").seesEnd() {
		t.Error("another machine's client's pipe has ended before it was read")
	}
	for _, s := range crowd {
		s.Close()
	}
}

func TestAfterCloseWriteNothingIsWritten(t *testing.T) {
	needRoot(t)
	l, path := published(t, guise.ListenConfig{})
	s := open(t, path, told(t, "level7-ntlm", 61001))
	c := acceptUnread(t, l)
	writes(t, c)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Write([]byte("more")); n != 0 || !errors.Is(err, unix.EPIPE) {
		t.Errorf("Write after CloseWrite: %d, %v, want EPIPE", n, err)
	}
	c.Close()
	if err := c.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("CloseWrite after Close: %v", err)
	}
	if s.seesEnd() {
		t.Error("smbd sees the end before it has read everything")
	}
	if b, err := io.ReadAll(s); string(b) != "x" || err != nil {
		t.Errorf("smbd reads %q, %v", b, err)
	}
}
