package guise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/token"
)

// serverEnd is what a server knows of a client. It is small until the client has said something, because many say nothing
// for long.
type serverEnd struct {
	listener *Listener
	peer     *token.Token // as the kernel froze it at connect
	phase    atomic.Uint32
	mu       sync.Mutex // guards becoming known, and known's fields
	known    *knownClient
}

// The phases of a server's end.
const (
	unknown uint32 = iota // nothing has come from the client
	static                // its context is known and stays; known is set
	dynamic               // its context is followed; known is set
	lost                  // its context is lost; known.lost says why
)

// knownClient is what there is to know once S9 of docs/semantics.md is met.
type knownClient struct {
	qos     QoS
	current *token.Token
	spare   atomic.Pointer[Scope] // of the last scope, for the next with the same token
	lost    error

	messages  *messageReader // in message mode
	following *following     // with dynamic tracking
	readMu    sync.Mutex     // of those two
}

// following is a dynamic connection's place in what its client says.
type following struct {
	channel *announce.Receiver // nil once the client has closed it
	at      uint64             // bytes (messages) that have been returned by read
	next    *announce.Announced
	held    []byte // read from the socket, but written under a context that is not current yet
}

// WaitClient waits until the client has said something, so that [Conn.RunAsClient], [Conn.Client] and [Conn.QoS] know it, and
// consumes none of its data. It returns nil then, also if what came is the end; otherwise ctx's error, or the read deadline's.
func (c *Conn) WaitClient(ctx context.Context) error {
	if c.server == nil {
		return opError("identify", c.pipe, errNotServer)
	}
	err := c.server.wait(ctx, c)
	return c.fail("identify", err)
}

var errNotServer = errors.New("this is a client's end; only a server's end has a client")

// wait waits for the first thing to come and takes it in.
func (s *serverEnd) wait(ctx context.Context, c *Conn) error {
	if s.phase.Load() != unknown {
		return s.lostErr()
	}
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return err
	}
	if ctx.Done() != nil {
		// A deadline in the past wakes the reader; it is this call's own.
		stop := context.AfterFunc(ctx, func() { c.socket.SetReadDeadline(time.Unix(1, 0)) })
		defer func() {
			if !stop() {
				c.socket.SetReadDeadline(time.Time{})
			}
		}()
	}
	err = raw.Read(func(fd uintptr) bool {
		return announce.PeekFirst(int(fd)) != announce.Nothing || s.phase.Load() != unknown
	})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	return s.meet(c)
}

// meet takes in what came first, without waiting.
func (s *serverEnd) meet(c *Conn) error {
	if s.phase.Load() != unknown {
		return s.lostErr()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase.Load() != unknown {
		return s.lostErrLocked()
	}
	err := ErrNoDataRead
	control(c.socket, func(fd int) { err = s.meetOn(c, fd) })
	if c.closed.Load() {
		return unix.EBADF // reported as net.ErrClosed
	}
	return err
}

func (s *serverEnd) meetOn(c *Conn, fd int) error {
	first := announce.PeekFirst(fd)
	if first == announce.Nothing {
		return ErrNoDataRead
	}
	known := &knownClient{current: s.peer}
	if c.message {
		known.messages = &messageReader{}
		defer unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}
	// From here on no client may send descriptors (Linux 6.16).
	defer unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)

	s.known = known
	if first == announce.Plain {
		// A client that can't announce is static, whatever the listener prefers.
		known.qos = QoS{}.inForce(Static)
		s.phase.Store(static)
		return nil
	}
	channel, err := announce.ReceivePreface(fd)
	if err != nil {
		return s.loseLocked(c, err)
	}
	hello, err := channel.Hello()
	if err != nil {
		channel.Refuse(announce.RefusalFor(err))
		channel.Close()
		return s.loseLocked(c, err)
	}
	stated := QoS{hello.Level, hello.Tracking, hello.EffectiveOnly}
	known.qos = stated.inForce(s.listener.config.Tracking)
	known.current = s.peer.Restrict(token.Statement{
		Level: known.qos.Level, EffectiveOnly: hello.EffectiveOnly, Capabilities: hello.Capabilities,
	})
	if known.qos.Tracking == Dynamic {
		err := channel.Follow(fd)
		switch {
		case errors.Is(err, announce.ErrCannotProve):
			s.listener.config.Logger.Info("tracking is static", "pipe", c.pipe, "client", s.peer, "error", err)
			known.qos.Tracking = Static
		case err != nil:
			channel.Refuse(announce.RefusalFor(err))
			channel.Close()
			return s.loseLocked(c, err)
		}
	}
	if known.qos.Tracking != stated.Tracking {
		channel.Tell(announce.InForce{Level: known.qos.Level, Tracking: known.qos.Tracking, EffectiveOnly: known.qos.EffectiveOnly})
	}
	if known.qos.Tracking == Static {
		channel.Close()
		s.phase.Store(static)
		return nil
	}
	known.following = &following{channel: channel}
	s.phase.Store(dynamic)
	return nil
}

// loseLocked ends the connection because its client's context can't be known. s.mu is held.
func (s *serverEnd) loseLocked(c *Conn, why error) error {
	k := s.known
	k.lost = fmt.Errorf("%w: %w", ErrContextLost, why)
	k.current = nil
	s.phase.Store(lost)
	s.listener.config.Logger.Warn("client's context lost", "pipe", c.pipe, "client", s.peer, "error", why)
	if f := k.following; f != nil && f.channel != nil {
		f.channel.Refuse(announce.RefusalFor(why))
		f.channel.Close()
		f.channel = nil
	}
	control(c.socket, func(fd int) { unix.Shutdown(fd, unix.SHUT_RDWR) })
	return k.lost
}

func (s *serverEnd) lostErr() error {
	if s.phase.Load() != lost {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lostErrLocked()
}

func (s *serverEnd) lostErrLocked() error {
	if s.known == nil {
		return nil
	}
	return s.known.lost
}

// read is Read of a server's end.
func (s *serverEnd) read(c *Conn, p []byte) (int, error) {
	if s.phase.Load() == unknown {
		if err := s.wait(context.Background(), c); err != nil {
			return 0, c.fail("read", err)
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	switch s.phase.Load() {
	case lost:
		return 0, c.fail("read", s.lostErr())
	case static:
		if !c.message {
			n, err := c.socket.Read(p)
			return n, c.fail("read", err)
		}
		s.known.readMu.Lock()
		defer s.known.readMu.Unlock()
		n, _, err := c.readMessage(s.known.messages, p)
		return n, c.fail("read", err)
	}
	s.known.readMu.Lock()
	defer s.known.readMu.Unlock()
	n, err := s.readFollowing(c, p)
	return n, c.fail("read", err)
}

// readFollowing reads with dynamic tracking: whatever it returns was written under the context that it leaves current.
func (s *serverEnd) readFollowing(c *Conn, p []byte) (int, error) {
	f := s.known.following
	if c.message {
		n, fresh, readErr := c.readMessage(s.known.messages, p)
		if fresh {
			if _, err := s.follow(c, 1); err != nil {
				return 0, err
			}
			f.at++
		}
		return n, readErr
	}
	if len(f.held) > 0 {
		return s.returnHeld(c, p)
	}
	n, readErr := c.socket.Read(p)
	if n == 0 {
		if err := s.lostErr(); err != nil {
			return 0, err
		}
		return 0, readErr
	}
	until, err := s.follow(c, uint64(n))
	if err != nil {
		return 0, err
	}
	if until < uint64(n) {
		// What a client announces goes before what it writes, so this is all there is of the current context.
		f.hold(p[until:n])
		n = int(until)
	}
	f.at += uint64(n)
	return n, readErr
}

// hold keeps what was read too early.
func (f *following) hold(b []byte) {
	buf := make([]byte, len(b))
	copy(buf, b)
	f.held = buf
}

func (s *serverEnd) returnHeld(c *Conn, p []byte) (int, error) {
	f := s.known.following
	n := min(len(p), len(f.held))
	until, err := s.follow(c, uint64(n))
	if err != nil {
		return 0, err
	}
	n = copy(p[:until], f.held)
	if f.held = f.held[n:]; len(f.held) == 0 {
		f.held = nil
	}
	f.at += uint64(n)
	return n, nil
}

// follow makes the context current that what comes next was written under, and returns for how many of the next n bytes or
// messages it holds, at least one.
func (s *serverEnd) follow(c *Conn, n uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known
	if k.lost != nil {
		return 0, k.lost
	}
	f := k.following
	for {
		if f.next == nil && f.channel != nil {
			next, err := f.channel.Next()
			if err == io.EOF {
				f.channel.Close()
				f.channel = nil
			} else if err != nil {
				return 0, s.loseLocked(c, err)
			}
			if next != nil && next.At < f.at {
				return 0, s.loseLocked(c, fmt.Errorf("%w: a context is to begin at %d, where %d has been read already", announce.ErrProtocol, next.At, f.at))
			}
			f.next = next
		}
		switch {
		case f.next == nil:
			return n, nil
		case f.next.At > f.at:
			return min(n, f.next.At-f.at), nil
		}
		k.current = f.next.Token.Restrict(token.Statement{
			Level: k.qos.Level, EffectiveOnly: k.qos.EffectiveOnly, Capabilities: token.AllCapabilities,
		})
		if s.listener.config.AllowForeignRoot {
			k.current = k.current.AllowForeignRoot()
		}
		f.next = nil
	}
}

// context returns the client's token for a scope or an answer, with s.mu unlocked again.
func (s *serverEnd) context(c *Conn) (*knownClient, *token.Token, error) {
	if err := s.meet(c); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known
	if k.lost != nil {
		return nil, nil, k.lost
	}
	if k.qos.Tracking == Dynamic && k.current.UID() == 0 {
		// A root client's capabilities are looked at each time.
		control(c.socket, func(fd int) { k.current = k.current.LookAgain(fd) })
	}
	return k, k.current, nil
}

func (s *serverEnd) qosInForce(c *Conn) QoS {
	if s.meet(c) != nil {
		return QoS{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known.qos
}

func (s *serverEnd) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known != nil && s.known.following != nil && s.known.following.channel != nil {
		s.known.following.channel.Close()
		s.known.following.channel = nil
	}
}

// Client returns who is calling now: the context of the open with static tracking, and with dynamic tracking the one that what
// was read last was written under. The error wraps [ErrNoDataRead], [ErrLevel] at level Anonymous, or [ErrContextLost].
func (c *Conn) Client() (*token.Token, error) {
	if c.server == nil {
		return nil, opError("identify", c.pipe, errNotServer)
	}
	_, t, err := c.server.context(c)
	if err != nil {
		return nil, c.fail("identify", err)
	}
	if t.Level() < Identification {
		return nil, opError("identify", c.pipe, fmt.Errorf("%w: the client is anonymous", ErrLevel))
	}
	return t, nil
}
