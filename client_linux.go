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
)

// clientEnd is a client's side of a connection: what it stated, and what it has told the server of its context.
type clientEnd struct {
	stated QoS
	scope  *Scope // that the connection was opened in, nil if none
	// plain is set when writes need no look at the context any more: tracking is static.
	plain atomic.Bool

	channel *announce.Sender

	mu       sync.Mutex    // one write at a time, with the announcement that goes before it
	tracking Tracking      // TrackingUnstated until the server has said
	told     announce.Look // the context that the server knows of
	source   uint64        // and what it is of
	level    Level         // that it was told last
	only     bool
	now      announce.Look
	written  uint64 // bytes, in message mode messages

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

// newClientEnd sends the preface on a socket that is connected, on a thread that wears what it wore when it connected.
func newClientEnd(c *Conn, qos QoS) (*clientEnd, error) {
	e := &clientEnd{stated: qos, tracking: qos.Tracking}
	if w := thread.Current(); w != nil {
		if e.scope, _ = w.Owner.(*Scope); e.scope != nil {
			e.scope.kept.Store(true)
		}
		e.limit(w, &qos)
	}
	if err := e.told.Take(); err != nil {
		return nil, err
	}
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	e.level, e.only, e.source = qos.Level, qos.EffectiveOnly, source(thread.Current())
	e.stated.Level, e.stated.EffectiveOnly = qos.Level, qos.EffectiveOnly
	e.channel, err = announce.Open(raw, announce.Hello{
		Level: qos.Level, Tracking: qos.Tracking, EffectiveOnly: qos.EffectiveOnly,
		Source: e.source, Capabilities: e.told.Capabilities(),
	})
	if err != nil {
		return nil, err
	}
	e.plain.Store(qos.Tracking == Static)
	if c.message {
		e.messages = &messageReader{}
		control(c.socket, func(fd int) { err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		if err != nil {
			e.channel.Close()
			return nil, err
		}
	}
	return e, nil
}

// limit lowers what is stated to what the token that the thread wears allows: a level is never raised on the way.
func (e *clientEnd) limit(w *thread.Worn, qos *QoS) {
	qos.Level = w.Token().AtMost(qos.Level)
	qos.EffectiveOnly = qos.EffectiveOnly || w.Token().EffectiveOnly()
}

// source returns what the context of a thread is of: the scope it is in, 0 for the process itself.
func source(w *thread.Worn) uint64 {
	if w != nil {
		if s, ok := w.Owner.(*Scope); ok {
			return s.id
		}
	}
	return 0
}

func (e *clientEnd) read(c *Conn, p []byte) (n int, err error) {
	if c.message {
		if len(p) == 0 {
			return 0, nil
		}
		e.readMu.Lock()
		n, _, err = c.readMessage(e.messages, p)
		e.readMu.Unlock()
	} else {
		n, err = c.socket.Read(p)
	}
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
		answer, err := e.channel.Answer()
		if answer == nil || err != nil {
			return err
		}
		e.said.take(answer)
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
	e.mu.Lock()
	defer e.mu.Unlock()
	n, err := e.writeAnnounced(c, p)
	if err != nil && e.ended(err) {
		err = e.explain(err)
	}
	return n, c.fail("write", err)
}

// writeAnnounced writes p after telling the server of the writing thread's context, if it is another than before.
func (e *clientEnd) writeAnnounced(c *Conn, p []byte) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	w := thread.Current()
	if err := e.decide(w); err != nil {
		return 0, err
	}
	if e.tracking != Static {
		if err := e.tell(w); err != nil {
			return 0, err
		}
	}
	n, err := c.writeSocket(p)
	switch {
	case !c.message:
		e.written += uint64(n)
	case err == nil:
		e.written++
	}
	return n, err
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
	if tracking, refusal := e.said.get(); wait && err == nil && e.tracking == TrackingUnstated && tracking == TrackingUnstated && refusal == nil {
		var answer any
		answer, err = e.channel.WaitAnswer()
		e.said.take(answer)
	}
	tracking, refusal := e.said.get()
	if tracking != TrackingUnstated {
		e.tracking = tracking
		e.plain.Store(tracking == Static)
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

// tell announces the calling thread's context if the server does not know it.
func (e *clientEnd) tell(w *thread.Worn) error {
	if err := e.now.Take(); err != nil {
		return fmt.Errorf("looking at this thread's context: %w", err)
	}
	qos := QoS{Level: e.stated.Level, EffectiveOnly: e.stated.EffectiveOnly}
	if w != nil {
		e.limit(w, &qos)
	}
	of := source(w)
	if e.now.Equal(&e.told) && of == e.source && qos.Level == e.level && qos.EffectiveOnly == e.only {
		return nil
	}
	err := e.channel.Announce(&e.now, announce.Context{Level: qos.Level, EffectiveOnly: qos.EffectiveOnly, Source: of, At: e.written})
	if err != nil {
		if e.ended(err) {
			return e.unheard(err)
		}
		return fmt.Errorf("announcing this thread's context: %w", err)
	}
	e.told, e.now = e.now, e.told
	e.level, e.only, e.source = qos.Level, qos.EffectiveOnly, of
	return nil
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

func (e *clientEnd) close() { e.closeChannel() }
