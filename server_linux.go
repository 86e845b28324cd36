package guise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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
	channel *announce.Receiver    // nil once the client has closed it
	at      uint64                // bytes (messages) that have been returned by read
	latest  uint64                // the place that was announced last
	waiting []*announce.Announced // in order: received, and their place not reached
	behind  bool                  // more may have been in the kernel's queue when the last read returned
	placed  *announce.Announced   // whose place was reached last, at first that of the open
	current *announce.Announced   // what the current context is of
	held    []byte                // read from the socket, but written under a context that is not current yet
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
		// A deadline in the past wakes the reader. It is this call's own, so the caller's comes back.
		woken := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			defer close(woken)
			c.socket.SetReadDeadline(time.Unix(1, 0))
		})
		defer func() {
			if !stop() {
				<-woken
				c.restoreReadDeadline()
			}
		}()
	}
	err = raw.Read(func(fd uintptr) bool {
		first, peekErr := announce.PeekFirst(int(fd))
		return first != announce.Nothing || peekErr != nil || s.phase.Load() != unknown
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
	if c.closed.Load() { // a closed connection must not get a control channel: nobody would close that
		return unix.EBADF // reported as net.ErrClosed
	}
	err := ErrNoDataRead
	control(c.socket, func(fd int) { err = s.meetOn(c, fd) })
	return err
}

func (s *serverEnd) meetOn(c *Conn, fd int) error {
	first, err := announce.PeekFirst(fd)
	if err == nil && first == announce.Nothing {
		return ErrNoDataRead
	}
	known := &knownClient{current: s.peer}
	if c.message {
		known.messages = &messageReader{}
	}
	s.known = known
	if err != nil {
		return s.loseLocked(c, err)
	}
	if first == announce.Plain {
		// A client that can't announce is static, whatever the listener prefers.
		known.qos = QoS{}.inForce(Static)
		if err := s.enough(known.qos.Level); err != nil {
			return s.loseLocked(c, err)
		}
		return s.met(c, fd, static)
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
	if err := s.enough(known.qos.Level); err != nil {
		channel.Refuse(announce.RefusalFor(err))
		channel.Close()
		return s.loseLocked(c, err)
	}
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
		return s.met(c, fd, static)
	}
	opened := &announce.Announced{Token: known.current, Source: hello.Source}
	known.following = &following{channel: channel, placed: opened, current: opened}
	return s.met(c, fd, dynamic)
}

// met makes the socket ready for reading what comes after the preface, and lets everybody know what is known. s.mu is held.
func (s *serverEnd) met(c *Conn, fd int, phase uint32) error {
	// From here on no client may send descriptors. Kernels before Linux 6.16 don't have that.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
	if c.message {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
			return s.loseLocked(c, fmt.Errorf("turning SO_PASSCRED on: %w", err))
		}
	}
	s.phase.Store(phase)
	return nil
}

// enough returns an error if the listener takes a higher level.
func (s *serverEnd) enough(l Level) error {
	if l < s.listener.config.Level {
		return fmt.Errorf("%w: it states %v, and this pipe takes %v", ErrLevel, l, s.listener.config.Level)
	}
	return nil
}

// loseLocked ends the connection because its client's context can't be known. s.mu is held.
func (s *serverEnd) loseLocked(c *Conn, why error) error {
	k := s.known
	k.lost = why
	if !errors.Is(why, ErrLevel) { // that client was honest
		k.lost = fmt.Errorf("%w: %w", ErrContextLost, why)
	}
	k.current = nil
	s.phase.Store(lost)
	s.listener.config.Logger.Warn("connection ended", "pipe", c.pipe, "client", s.peer, "error", k.lost)
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
		} else if err := s.lostErr(); err != nil {
			return 0, err
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
	return n, nil
}

// mostWaiting is how many announcements are taken off the channel before their place among the data is reached. More stay in
// the kernel's queue, whose length the sender pays for.
const mostWaiting = 64

// takeOff takes announcements off the channel to wait for their place.
func (f *following) takeOff() error {
	for len(f.waiting) < mostWaiting {
		next, err := f.receive()
		if err != nil {
			return err
		}
		if next == nil {
			f.behind = false
			return nil
		}
		f.waiting = append(f.waiting, next)
	}
	f.behind = true
	return nil
}

// follow makes the context current that what comes next was written under, and moves on by as many of the next n bytes or
// messages as it holds for, at least one, which it returns.
func (s *serverEnd) follow(c *Conn, n uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known.lost != nil {
		return 0, s.known.lost
	}
	f := s.known.following
	if s.known.qos.Tracking == Static {
		return n, nil // frozen
	}
	for {
		if err := f.takeOff(); err != nil {
			return 0, s.loseLocked(c, err)
		}
		for len(f.waiting) > 0 && f.waiting[0].At <= f.at {
			f.placed = f.waiting[0]
			f.waiting = slices.Delete(f.waiting, 0, 1)
		}
		if len(f.waiting) > 0 || !f.behind {
			break
		}
	}
	s.makeCurrent(f.placed)
	if len(f.waiting) > 0 {
		n = min(n, f.waiting[0].At-f.at)
	}
	f.at += n
	return n, nil
}

// receive returns the next announcement, nil if there is none.
func (f *following) receive() (*announce.Announced, error) {
	if f.channel == nil {
		return nil, nil
	}
	next, err := f.channel.Next()
	if err == io.EOF {
		f.channel.Close()
		f.channel = nil
		return nil, nil
	}
	if err != nil || next == nil {
		return nil, err
	}
	if next.At < f.latest {
		return nil, fmt.Errorf("%w: a context is to begin at %d, after one that begins at %d", announce.ErrProtocol, next.At, f.latest)
	}
	if next.At < f.at {
		return nil, fmt.Errorf("%w: a context is to begin at %d, where %d has been read already", announce.ErrProtocol, next.At, f.at)
	}
	f.latest = next.At
	return next, nil
}

// makeCurrent makes an announced context the client's. s.mu is held.
func (s *serverEnd) makeCurrent(a *announce.Announced) {
	k := s.known
	if k.following.current == a {
		return
	}
	k.following.current = a
	k.current = a.Token.Restrict(token.Statement{
		Level: k.qos.Level, EffectiveOnly: k.qos.EffectiveOnly, Capabilities: token.AllCapabilities,
	})
	if s.listener.config.AllowForeignRoot {
		k.current = k.current.AllowForeignRoot()
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
	if k.lost == nil && k.qos.Tracking == Dynamic {
		if err := s.catchUp(c); err != nil {
			return nil, nil, err
		}
	}
	if k.lost != nil {
		return nil, nil, k.lost
	}
	return k, k.current, nil
}

// catchUp makes what the client has announced since the last read the current context, whether or not what it announced it
// with has been read: a server acts as its client is now. Only the source of the current context counts, the client's process
// or one scope of the client's: what it writes for somebody else waits for its place among the data, and so does what was
// announced before that read returned. So what was read is acted on as who wrote it. s.mu is held.
func (s *serverEnd) catchUp(c *Conn) error {
	f := s.known.following
	wasBehind, old := f.behind, len(f.waiting)
	if err := f.takeOff(); err != nil {
		return s.loseLocked(c, err)
	}
	for _, a := range f.waiting[old:] {
		if !wasBehind && a.Source == f.current.Source {
			s.makeCurrent(a)
		}
	}
	if s.known.current.UID() == 0 {
		// A root client's capabilities are looked at each time.
		control(c.socket, func(fd int) { s.known.current = s.known.current.LookAgain(fd) })
	}
	return nil
}

func (s *serverEnd) qosInForce(c *Conn) QoS {
	_ = s.meet(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		return QoS{}
	}
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

// Freeze ends the following of the client: its context stays what it is now, and the client is told that tracking is static. It
// is for a server that hands the socket to a program, which can't follow, and would let the client's announcements pile up; that
// server has not read anything yet, because Read may take more off the socket than it returns. With static tracking Freeze does
// nothing.
func (c *Conn) Freeze() error {
	if c.server == nil {
		return opError("identify", c.pipe, errNotServer)
	}
	if _, _, err := c.server.context(c); err != nil {
		return c.fail("identify", err)
	}
	c.server.freeze()
	return nil
}

func (s *serverEnd) freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known
	if k.lost != nil || k.qos.Tracking != Dynamic {
		return
	}
	k.qos.Tracking = Static
	if f := k.following; f.channel != nil {
		f.channel.Tell(announce.InForce{Level: k.qos.Level, Tracking: Static, EffectiveOnly: k.qos.EffectiveOnly})
		f.channel.Close()
		f.channel = nil
	}
}

// Client returns who is calling now: the context of the open with static tracking, and with dynamic tracking the one that what
// was read last was written under, as its client has changed it since. The error wraps [ErrNoDataRead], [ErrLevel] at level Anonymous, or [ErrContextLost].
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
