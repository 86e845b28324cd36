package guise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	peer     *token.Token   // as the kernel froze it at connect, or Samba told of it
	network  *networkClient // nil for a client of this machine
	phase    atomic.Uint32
	scopes   atomic.Int32 // in progress, for those who watch
	// refusesRights says that the kernel lets the client send no more descriptors.
	refusesRights atomic.Bool
	places        int        // of the process's descriptors, that the client takes; mu guards it once the client is known
	mu            sync.Mutex // guards becoming known, and known's fields
	known         *knownClient
	hop           atomic.Pointer[token.Hop] // the client's process, once somebody has asked
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
	opened  *token.Token // who opened the pipe, with what it said of that; nil if that can't be known
	current *token.Token
	spare   atomic.Pointer[Scope] // of the last scope, for the next with the same token
	lost    error

	messages  *messageReader // in message mode
	following *following     // with dynamic tracking
	readMu    sync.Mutex     // of those two
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
	err := c.raw.Read(func(fd uintptr) bool {
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
	known := &knownClient{current: s.peer, opened: s.peer}
	if c.message {
		known.messages = &messageReader{owner: s.peer.UID()}
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
	hello, before, err := channel.Hello()
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
	known.current = s.came(c, s.peer.Restrict(token.Statement{
		Level: known.qos.Level, EffectiveOnly: hello.EffectiveOnly, Capabilities: hello.Capabilities, Network: hello.Network,
	}), before)
	known.opened = known.current
	if known.qos.Tracking == Dynamic {
		err := channel.Follow(fd)
		switch {
		case errors.Is(err, announce.ErrCannotProve):
			s.listener.log(slog.LevelInfo, s.peer.UID(), "tracking is static", "client", s.peer, "error", err)
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
	if known.following, err = s.newFollowing(c, channel, hello.Source); err != nil {
		known.following = nil
		channel.Refuse(announce.RefusalFor(err))
		channel.Close()
		return s.loseLocked(c, err)
	}
	return s.met(c, fd, dynamic)
}

// met makes the socket ready for reading what comes after the preface, and lets everybody know what is known. s.mu is held.
func (s *serverEnd) met(c *Conn, fd int, phase uint32) error {
	// From here on no client may send descriptors. Kernels before Linux 6.16 don't have that.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0) == nil {
		s.refusesRights.Store(true)
	}
	if c.message {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
			return s.loseLocked(c, fmt.Errorf("turning SO_PASSCRED on: %w", err))
		}
	}
	s.phase.Store(phase)
	s.observe(WatchKnown)
	return nil
}

// noteRead notes, after a read, whether descriptors can still come along with data: what was queued when met had the kernel refuse them may
// bring some. On an empty queue there is none of that.
func (s *serverEnd) noteRead(c *Conn) {
	if s.refusesRights.Load() && !c.noRights.Load() {
		control(c.socket, func(fd int) {
			if left, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil && left == 0 {
				c.noRights.Store(true)
			}
		})
	}
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
	s.listener.log(slog.LevelWarn, s.peer.UID(), "connection ended", "client", s.peer, "error", k.lost)
	s.observe(WatchLost)
	if f := k.following; f != nil {
		if f.channel != nil {
			f.channel.Refuse(announce.RefusalFor(why))
		}
		f.end()
		for _, scope := range f.scopes {
			scope.follow(nil, nil)
		}
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
			n, err := c.readStream(p, s.peer.UID())
			s.noteRead(c)
			return n, c.fail("read", err)
		}
		s.known.readMu.Lock()
		defer s.known.readMu.Unlock()
		if s.network != nil {
			n, err := s.network.frames.read(c.socket, p)
			return n, c.fail("read", err)
		}
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
	n, readErr := c.readStream(p, s.peer.UID())
	s.noteRead(c)
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

// context returns the client's token, with s.mu unlocked again. A scope, if not nil, is made ready for it, and with dynamic
// tracking follows it from now on until leave.
func (s *serverEnd) context(c *Conn, scope func(*knownClient) *Scope) (*token.Token, *Scope, error) {
	if err := s.meet(c); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known
	follows := k.lost == nil && k.qos.Tracking == Dynamic
	if follows {
		if err := s.catchUp(c); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case k.lost != nil:
		return nil, nil, k.lost
	case k.current == nil:
		return nil, nil, errLostOnTheWay
	}
	if scope == nil {
		return k.current, nil, nil
	}
	entering := scope(k)
	if follows && s.listener.scopesFollow {
		f := k.following
		entering.took = f.current.Sequence
		entering.beginFollowing(k.current, c, f.current.Source, f.current.Proof)
		f.scopes = append(f.scopes, entering)
	} else {
		entering.begin(k.current, c)
	}
	return k.current, entering, nil
}

// leave takes back a scope that context made ready.
func (s *serverEnd) leave(scope *Scope) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.known.following
	if i := slices.Index(f.scopes, scope); i >= 0 {
		last := len(f.scopes) - 1
		f.scopes[i], f.scopes[last] = f.scopes[last], nil
		f.scopes = f.scopes[:last]
	}
}

// opened returns who opened the pipe. What the client has not allowed, or not yet, can't be done with it.
func (s *serverEnd) opened(c *Conn) *token.Token {
	_ = s.meet(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || s.known.lost != nil {
		return s.peer.Restrict(token.Statement{Level: Identification, Capabilities: token.AllCapabilities})
	}
	return s.known.opened
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

// close lets go of everything. It does not wait for who is just receiving something from the client.
func (s *serverEnd) close() {
	if !s.mu.TryLock() {
		go func() {
			s.mu.Lock()
			s.closeLocked()
		}()
		return
	}
	s.closeLocked()
}

// closeLocked unlocks s.mu.
func (s *serverEnd) closeLocked() {
	defer s.mu.Unlock()
	if s.known != nil && s.known.following != nil {
		s.known.following.end()
	}
	s.listener.givePlaces(s.peer.UID(), s.places)
	s.listener.observers.gone(s)
}

// Freeze ends the following of the client: its context stays what it is now, and the client is told that tracking is static. It
// is for a server that hands the socket to a program, which can't follow, and would let the client's announcements pile up; that
// server has not read anything yet, because Read may take more off the socket than it returns. With static tracking Freeze does
// nothing.
func (c *Conn) Freeze() error {
	if c.server == nil {
		return opError("identify", c.pipe, errNotServer)
	}
	if _, _, err := c.server.context(c, nil); err != nil {
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
		f.stopListening()
	}
	k.following.forget()
	s.observe(WatchFrozen)
}

// Client returns who is calling now: the context of the open with static tracking, and with dynamic tracking the one that what
// was read last was written under, as its client has changed it since. The error wraps [ErrNoDataRead], [ErrLevel] at level Anonymous, or [ErrContextLost].
func (c *Conn) Client() (*token.Token, error) {
	if c.server == nil {
		return nil, opError("identify", c.pipe, errNotServer)
	}
	t, _, err := c.server.context(c, nil)
	if err != nil {
		return nil, c.fail("identify", err)
	}
	if t.Level() < Identification {
		return nil, opError("identify", c.pipe, fmt.Errorf("%w: the client is anonymous", ErrLevel))
	}
	return t, nil
}
