package guise

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// clientEnd is a client's side of a connection: what it stated, and what it has told the server of its context.
type clientEnd struct {
	stated QoS
	scope  *Scope // that the connection was opened in, nil if none
	// plain is set when writes need no look at the context any more: tracking is static.
	plain atomic.Bool

	channel *announce.Sender

	writeMu sync.Mutex // one write at a time

	mu       sync.Mutex // one announcement at a time; never held while data is written
	tracking Tracking   // TrackingUnstated until the server has said
	placed   told       // what goes with what is written
	written  uint64     // bytes, in message mode messages
	voices   []*voice   // that have spoken on this connection, and may change
	process  *voice     // that of the process among them
	now      announce.Look
	looked   bool // at the process for the last time: what somebody saw before is older
	closed   bool

	said said

	readMu   sync.Mutex // in message mode
	messages *messageReader
	heard    atomic.Bool // something has been read
}

// said is what the server has said on the control channel.
type said struct {
	mu       sync.Mutex
	tracking Tracking // in force; TrackingUnstated if it did not say
	refusal  error    // why it ended the connection, nil if it did not say
}

func (s *said) take(answer any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch a := answer.(type) {
	case announce.InForce:
		s.tracking = a.Tracking
	case announce.Refusal:
		s.refusal = a
	}
}

func (s *said) get() (tracking Tracking, refusal error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tracking, s.refusal
}

// enough reports whether it is known what tracking is in force, or that there is none.
func (s *said) enough() bool {
	tracking, refusal := s.get()
	return tracking != TrackingUnstated || refusal != nil
}

// told is what the server was told of a context.
type told struct {
	look   announce.Look
	source uint64
	level  Level
	only   bool
	remote bool // the context came over the network
}

// newClientEnd makes the client's end of a pipe that is not connected yet, on the thread that will connect. look is what that thread is, and
// seen what it wears.
func newClientEnd(qos QoS, look *announce.Look, seen *token.Token) (*clientEnd, error) {
	e := &clientEnd{stated: qos, tracking: qos.Tracking}
	w := thread.Current()
	s := scopeOf(w)
	if s != nil {
		e.scope = s
		s.kept.Store(true)
		e.limit(w, &qos)
	}
	e.placed.look.CopyFrom(look)
	e.placed.level, e.placed.only, e.placed.source = qos.Level, qos.EffectiveOnly, source(s)
	e.placed.remote = remote(w, seen)
	e.stated.Level, e.stated.EffectiveOnly = qos.Level, qos.EffectiveOnly
	hello := announce.Hello{
		Level: qos.Level, Tracking: qos.Tracking, EffectiveOnly: qos.EffectiveOnly,
		Source: e.placed.source, Capabilities: look.Capabilities(), Network: e.placed.remote,
	}
	var err error
	e.channel, err = announce.Make(func(channel *announce.Sender) error {
		if s == nil {
			return nil
		}
		w.Hold()
		defer w.Release()
		return sendWay(channel, w, s)
	}, hello)
	if err != nil {
		return nil, err
	}
	e.plain.Store(qos.Tracking == Static)
	return e, nil
}

// opened is what follows when the server has the preface.
func (e *clientEnd) opened(c *Conn, seen *token.Token) error {
	if c.message {
		e.messages = &messageReader{owner: e.channel.Server()}
		err := error(unix.EBADF)
		control(c.socket, func(fd int) { err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		if err != nil {
			return err
		}
	}
	if s := e.scope; e.tracking != Static {
		e.mu.Lock()
		e.voiceOf(s, seen)
		e.mu.Unlock()
		if s != nil && s.Token() != seen {
			e.announce()
		}
	}
	return nil
}

// scopeOf returns the scope that what a thread wears belongs to, nil if to none.
func scopeOf(w *thread.Worn) *Scope {
	if w == nil {
		return nil
	}
	s, _ := w.Owner.(*Scope)
	return s
}

// limit lowers what is stated to what the token that the thread wears allows: a level is never raised on the way.
func (e *clientEnd) limit(w *thread.Worn, qos *QoS) {
	qos.Level = w.Token().AtMost(qos.Level)
	qos.EffectiveOnly = qos.EffectiveOnly || w.Token().EffectiveOnly()
}

// remote reports whether a context came over the network: seen, or if that is nil what the thread wears. It is said of every
// scope, also by a process that can't tell more: it takes something away.
func remote(w *thread.Worn, seen *token.Token) bool {
	if seen == nil && w != nil {
		seen = w.Token()
	}
	_, network := seen.Origin()
	return network
}

// source returns what a context is of: the scope s, 0 for the process itself.
func source(s *Scope) uint64 {
	if s == nil {
		return 0
	}
	return s.id
}

func (e *clientEnd) read(c *Conn, p []byte) (n int, err error) {
	n, err = c.readAnswer(&e.readMu, e.messages, p, e.channel.Server())
	if err == nil || n > 0 {
		if !e.heard.Load() {
			e.hear()
		}
		return n, c.fail("read", err)
	}
	if e.ended(err) {
		err = e.explain(err)
	}
	return n, c.fail("read", err)
}

// hear notes that the server has sent data. A static connection has no use for its control channel after that.
func (e *clientEnd) hear() {
	e.heard.Store(true)
	if e.plain.Load() {
		e.closeChannel()
	}
}

// ended reports whether err may mean that the server has ended the connection.
func (e *clientEnd) ended(err error) bool {
	return err == io.EOF || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// listen takes in what the server has said so far. It returns io.EOF once the server will say no more.
func (e *clientEnd) listen() error {
	for {
		if ok, err := e.channel.Answer(e.said.take); !ok || err != nil {
			return err
		}
	}
}

// explain returns what the server said of why it ended the connection, and err if it said nothing.
func (e *clientEnd) explain(err error) error {
	_ = e.listen()
	if _, refusal := e.said.get(); refusal != nil {
		return refusal
	}
	return err
}

func (e *clientEnd) write(c *Conn, p []byte) (int, error) {
	if e.plain.Load() {
		n, err := c.writeSocket(p)
		if err != nil && e.ended(err) {
			err = e.explain(err)
		}
		return n, c.fail("write", err)
	}
	e.writeMu.Lock()
	defer e.writeMu.Unlock()
	n, err := e.writeAnnounced(c, p)
	if err != nil && e.ended(err) {
		err = e.explain(err)
	}
	return n, c.fail("write", err)
}

// writeAnnounced writes p after telling the server of the writing thread's context, if it is another than before.
func (e *clientEnd) writeAnnounced(c *Conn, p []byte) (int, error) {
	if err := e.speak(); err != nil {
		return 0, err
	}
	n, err := c.writeSocket(p)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !c.message:
		e.written += uint64(n)
	case err == nil:
		e.written++
	}
	return n, err
}

// speak does what goes before a write.
func (e *clientEnd) speak() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e.mu.Lock()
	defer e.mu.Unlock()

	w := thread.Current()
	if err := e.decide(w); err != nil {
		return err
	}
	if e.tracking == Static {
		return nil
	}
	return e.tell(w)
}

// decide hears the server about the tracking where the client stated none, and refuses writes from outside of the scope that a
// connection belongs to. Whether it belongs to one depends on the tracking, so such a write waits for the answer.
func (e *clientEnd) decide(w *thread.Worn) error {
	outside := e.scope != nil && !e.scope.ended.Load() && !within(w, e.scope)
	if e.tracking == TrackingUnstated || outside && e.tracking == Dynamic {
		if err := e.settle(outside); err != nil {
			return err
		}
	}
	if outside && e.tracking != Static {
		return ErrWrongScope
	}
	return nil
}

// settle takes over the tracking that the server says is in force, if it has said so. With wait it waits for that where the
// client stated none. It returns the server's refusal if there is one.
func (e *clientEnd) settle(wait bool) error {
	err := e.listen()
	if wait && err == nil && e.tracking == TrackingUnstated && !e.said.enough() {
		err = e.channel.WaitAnswer(e.said.take, e.said.enough)
	}
	tracking, refusal := e.said.get()
	if tracking != TrackingUnstated {
		e.tracking = tracking
		e.plain.Store(tracking == Static)
		if tracking == Static {
			e.silence()
		}
	}
	switch {
	case refusal != nil:
		return refusal
	case err != nil && err != io.EOF:
		return err
	}
	return nil
}

// within reports whether what a thread wears belongs to scope s, or to one entered inside it.
func within(w *thread.Worn, s *Scope) bool {
	for ; w != nil; w = w.Outer() {
		if w.Owner == s {
			return true
		}
	}
	return false
}

// unheard is what follows when the server has closed its end of the control channel: either tracking is static, or the
// connection has ended.
func (e *clientEnd) unheard(err error) error {
	if e.settle(false) == nil && e.tracking == Static {
		return nil
	}
	return e.explain(fmt.Errorf("the server no longer hears of changes: %w", err))
}

// qosInForce does not wait for a write that is under way.
func (e *clientEnd) qosInForce() QoS {
	q := e.stated.inForce(TrackingUnstated)
	q.Tracking = e.stated.Tracking
	if q.Tracking == Static {
		return q
	}
	_ = e.listen()
	if tracking, _ := e.said.get(); tracking != TrackingUnstated {
		q.Tracking = tracking
	}
	return q
}

func (e *clientEnd) setWriteDeadline(t time.Time) { _ = e.channel.SetDeadline(t) }

func (e *clientEnd) closeChannel() { _ = e.channel.Close() }

func (e *clientEnd) close() {
	e.closeChannel() // who waits to announce something waits no more
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.channel.Forget()
	e.silence()
}

// lastLook announces what the process has become since somebody looked.
func (e *clientEnd) lastLook() {
	if e.plain.Load() || !ownProcess.between(e) {
		return
	}
	tid := int32(0)
	if e.process != nil {
		if e.looked = e.process.isStill(&e.now); !e.looked {
			tid = e.process.tid
		}
	}
	e.mu.Unlock()
	if tid != 0 {
		ownProcess.look(tid)
	}
}
