package guise

import (
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/quota"
	"github.com/guise-project/guise/internal/readiness"
	"github.com/guise-project/guise/token"
)

// following is a dynamic connection's place in what its client says. The serverEnd's mu guards it, but for what only Read uses.
type following struct {
	channel *announce.Receiver  // nil once the client has closed it
	watched *readiness.Watch    // of the channel
	at      uint64              // bytes (messages) that have been returned by read
	latest  uint64              // the place that was announced last
	waiting []kept              // in order: received, and their place not reached
	sources map[uint64]*heard   // for which something may be acted on without a further announcement
	kept    int                 // bytes that what waits, and what came between writes, takes
	user    quota.User          // whose share of such bytes it is
	behind  bool                // more may have been in the kernel's queue when the last read returned
	placed  *announce.Announced // whose place was reached last, at first that of the open
	current *announce.Announced // what the current context is of; only its proof is kept
	scopes  []*Scope            // in progress
	ended   bool                // the server has closed the connection
	cost    int                 // bytes that all that was announced had

	held []byte // of Read: read from the socket, but written under a context that is not current yet
}

// changesLimit is how many changes of a client are taken in at once. One that changes as fast as it can must not take the others' time.
// A change may come in several: groups, gid, uid.
var changesLimit = readiness.Limit{Times: 8, Interval: 10 * time.Millisecond}

// changeBytes is how much of a context counts as another change. To prove one with 65536 groups takes as long as many hundred others.
const changeBytes = 2 << 10

// newFollowing begins to follow a client that opened with a context of a source.
func (s *serverEnd) newFollowing(c *Conn, channel *announce.Receiver, of uint64) (*following, error) {
	opened := &announce.Announced{Token: s.known.current, Source: of}
	f := &following{
		channel: channel, placed: opened, current: opened,
		user: quota.Of(s.peer.UID()), sources: map[uint64]*heard{of: {counts: 2}},
	}
	err := s.listener.takeChannelPlace(s.peer.UID())
	if err != nil {
		return nil, err
	}
	s.places++ // given back with the connection's
	user := f.user
	hear := func() {
		// A message with more descriptors than this process may have can keep whoever receives it, too.
		if fewDescriptors() || heldUp.has(user) {
			go s.hear(c)
			return
		}
		s.hear(c)
	}
	f.watched, err = readiness.AddStranger(channel.Descriptor(), changesLimit, hear, func() { heldUp.add(user) })
	return f, err
}

// hear takes in one announcement when one has come. It runs on the watching goroutine.
func (s *serverEnd) hear(c *Conn) {
	if !s.mu.TryLock() {
		return // somebody else is at it; if something is left then, this is called again
	}
	defer s.mu.Unlock()
	f := s.known.following
	switch {
	case s.known.lost != nil || f.channel == nil:
	case !f.room():
		f.behind = true
		f.watched.Suspend() // until Read gets on
	default:
		cost := f.cost
		if _, err := s.takeIn(c); err != nil {
			_ = s.loseLocked(c, err)
		}
		f.watched.Charge((f.cost - cost) / changeBytes)
	}
}

// takeIn receives one announcement and has it take effect where it does so at once:
//
//   - scopes in progress that were entered for its source follow;
//   - one that came between writes is in force for its source from now on;
//   - one that goes with a write waits for its place among the data, unless it is of the source of what was read last: a server acts
//     as its client is now. What was announced before that read returned waits all the same, so what was read is acted on as
//     who wrote it.
//
// s.mu is held.
func (s *serverEnd) takeIn(c *Conn) (bool, error) {
	f := s.known.following
	if f.channel == nil {
		return false, nil
	}
	a, err := f.channel.Next()
	if err == io.EOF {
		f.stopListening()
		return false, nil
	}
	if err == announce.ErrLeftOut {
		return true, nil
	}
	if err != nil || a == nil {
		return false, err
	}
	s.asStated(c, a)
	f.cost += a.Token.Bytes(nil)
	defer func() {
		if a != f.current {
			a.Proof.Release()
			a.Proof = nil
		}
	}()
	switch {
	case a.Now:
		f.takeBetween(a)
		if a.Source == f.current.Source {
			s.makeCurrent(a)
		}
	case a.At < f.latest:
		return false, fmt.Errorf("%w: a context is to begin at %d, after one that begins at %d", announce.ErrProtocol, a.At, f.latest)
	case a.At < f.at:
		return false, fmt.Errorf("%w: a context is to begin at %d, where %d has been read already", announce.ErrProtocol, a.At, f.at)
	default:
		f.latest = a.At
		f.wait(a)
		if !f.behind && a.Source == f.current.Source {
			s.makeCurrent(a)
		}
	}
	for _, scope := range f.scopes {
		if scope.source == a.Source {
			scope.took = a.Sequence
			scope.follow(a.Token, a.Proof)
		}
	}
	s.observeFollowed(a)
	return true, nil
}

// asStated limits what was announced to what the client and the listener have stated, and notes which way it came.
func (s *serverEnd) asStated(c *Conn, a *announce.Announced) {
	if a.Token == nil {
		return
	}
	k := s.known
	a.Token = a.Token.Restrict(token.Statement{
		Level: k.qos.Level, EffectiveOnly: k.qos.EffectiveOnly, Capabilities: token.AllCapabilities,
	})
	a.Token = s.came(c, a.Token, a.Way)
	a.Way = nil // the token has it
}

// came returns t with the way that it came to the client, as before says, and the client at its end. If before is nil, t is the client's
// own. It comes last: where a context is from may keep it from being worn.
func (s *serverEnd) came(c *Conn, t *token.Token, before *announce.Way) *token.Token {
	if before != nil {
		t = t.Through(append(slices.Clone(before.Hops), s.client(c)), before.Origin)
	}
	if s.listener.config.AllowForeignRoot {
		t = t.AllowForeignRoot()
	}
	return t
}

// client returns the client's process.
func (s *serverEnd) client(c *Conn) token.Hop {
	hop := s.hop.Load()
	if hop == nil {
		control(c.socket, func(fd int) {
			seen := token.HopOf(fd)
			hop = &seen
		})
		if hop == nil { // the server has closed the connection
			return token.UnknownHop
		}
		s.hop.Store(hop)
	}
	return *hop
}

// stopListening is what follows when the client has closed its end, or the connection ends.
func (f *following) stopListening() {
	if f.channel == nil {
		return
	}
	f.watched.Remove()
	f.channel.Close()
	f.channel = nil
}

// end lets go of everything.
func (f *following) end() {
	f.stopListening()
	f.forget()
	f.ended = true
	f.current.Proof.Release()
	f.current.Proof = nil
}

// follow makes the context current that what comes next was written under, and moves on by as many of the next n bytes or
// messages as it holds for, at least one, which it returns.
func (s *serverEnd) follow(c *Conn, n uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.known.following
	for round := 0; ; round++ {
		if round > 0 { // others may have waited for long
			s.mu.Unlock()
			s.mu.Lock()
		}
		switch {
		case s.known.lost != nil:
			return 0, s.known.lost
		case s.known.qos.Tracking == Static: // frozen
			return n, nil
		case f.ended:
			return 0, net.ErrClosed // who wrote what has been read is not known any more
		case round*atOnce > mostInARead:
			return 0, s.loseLocked(c, fmt.Errorf("%w: more than %d announcements came while one read looked for its place", announce.ErrProtocol, mostInARead))
		}
		if err := s.takeOff(c); err != nil {
			return 0, s.loseLocked(c, err)
		}
		f.reach()
		if len(f.waiting) > 0 || !f.behind {
			break
		}
	}
	s.makeCurrent(f.since(f.placed))
	for _, scope := range f.scopes {
		// It was announced before the scope began, and what was written under it is read in the scope.
		if scope.source == f.current.Source && scope.took < f.current.Sequence {
			scope.took = f.current.Sequence
			scope.follow(f.current.Token, f.current.Proof)
		}
	}
	if len(f.waiting) > 0 {
		n = min(n, f.waiting[0].At-f.at)
	}
	f.at += n
	return n, nil
}

// atOnce is how many announcements are taken off at most before somebody else may have the lock.
const atOnce = 128

// mostInARead is how many announcements are taken off during one read before one is found that begins later than what was read. That is
// more than were in the kernel's queue when it began; a client that announces without end must not keep the reader.
var mostInARead = 1 << 16

// takeOff takes announcements off the channel.
func (s *serverEnd) takeOff(c *Conn) error {
	f := s.known.following
	for n := 0; n < atOnce && f.room(); n++ {
		got, err := s.takeIn(c)
		if err != nil {
			return err
		}
		if !got {
			if f.behind {
				f.behind = false
				f.watched.Resume()
			}
			return nil
		}
	}
	f.behind = true
	return nil
}

// makeCurrent makes an announced context the client's. s.mu is held.
func (s *serverEnd) makeCurrent(a *announce.Announced) {
	if f := s.known.following; f.current != a {
		f.current.Proof.Release()
		f.current.Proof = nil
		f.count(a.Source)
		f.uncount(f.current.Source)
		f.current = a
		s.known.current = a.Token
		s.observe(WatchChanged)
	}
}

var errLostOnTheWay = fmt.Errorf("%w: a process on its way broke the protocol", ErrContextLost)

// catchUp makes what the client has announced since the last read the current context: see takeIn. s.mu is held.
func (s *serverEnd) catchUp(c *Conn) error {
	f := s.known.following
	if err := s.takeOff(c); err != nil {
		return s.loseLocked(c, err)
	}
	k := s.known
	if k.current != nil && k.current.UID() == 0 {
		// A root client's capabilities are looked at each time.
		if p := f.current.Proof; p != nil {
			k.current = p.LookAgain(k.current)
		} else {
			control(c.socket, func(fd int) { k.current = k.current.LookAgain(fd) })
		}
	}
	return nil
}
