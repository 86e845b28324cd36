package guise

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// voice is whose context a connection has, or had and a scope of the server's may still have: the client's process, or one scope. It
// lasts until the scope or the connection ends. The clientEnd's mu guards it.
type voice struct {
	scope *Scope        // nil for the process
	tid   int32         // of the process: the thread that spoke last
	look  announce.Look // of the process: what was announced last
	token *token.Token  // of a scope: what was announced last
}

// voiceOf returns the voice of a scope, of the process for nil, which has been told of as it is now: with the token seen, or the
// look in e.placed. e.mu is held.
func (e *clientEnd) voiceOf(s *Scope, seen *token.Token) *voice {
	for _, v := range e.voices {
		if v.scope == s {
			v.spoke(e, seen)
			return v
		}
	}
	v := &voice{scope: s}
	v.spoke(e, seen)
	e.voices = slices.DeleteFunc(e.voices, func(v *voice) bool { return v.scope != nil && v.over() })
	e.voices = append(e.voices, v)
	if s == nil {
		e.process = v
		followProcess(e, 0, v.tid)
	} else {
		s.hang(e)
	}
	return v
}

// over reports whether there is nothing more to tell of it but with a write. What it became while it lasted is told also after a scope's
// end.
func (v *voice) over() bool {
	return v.scope == nil || v.scope.ended.Load() && (v.token == nil || v.token == v.scope.Token() && v.scope.lostErr() == nil)
}

// isStill reports whether the process's voice is the calling thread's and has been told of as that is now, which takes less than looking at
// another thread. It looks into now's memory.
func (v *voice) isStill(now *announce.Look) bool {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return v.tid == thread.ID() && thread.Current() == nil && now.Take() == nil && v.look.Equal(now)
}

// spoke notes what the server was told.
func (v *voice) spoke(e *clientEnd, seen *token.Token) {
	v.token = seen
	if v.scope != nil {
		return
	}
	old, changed := v.tid, !v.look.Equal(&e.placed.look)
	v.tid = thread.ID()
	if changed {
		v.look.CopyFrom(&e.placed.look)
	}
	if e.process == v && (changed || v.tid != old) {
		followProcess(e, old, v.tid)
	}
}

// silence ends the announcing between writes. e.mu is held.
func (e *clientEnd) silence() {
	for _, v := range e.voices {
		if v.scope != nil {
			v.scope.unhang(e)
		}
	}
	if e.process != nil {
		unfollowProcess(e, e.process.tid)
	}
	e.voices, e.process = nil, nil
	forgetLater(e)
}

// hang has the connection's end told of the scope's changes, until unhang or the end of the scope.
func (s *Scope) hang(e *clientEnd) {
	s.kept.Store(true)
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	s.client.ends = append(s.client.ends, e)
}

func (s *Scope) unhang(e *clientEnd) {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	s.client.ends = slices.DeleteFunc(s.client.ends, func(other *clientEnd) bool { return other == e })
}

// tell announces the calling thread's context, to begin with what is written next, if the server does not know it. e.mu is held.
func (e *clientEnd) tell(w *thread.Worn) error {
	s := scopeOf(w)
	var seen *token.Token
	if s != nil {
		// A change that is under way is one that this has not seen: it is announced once more.
		seen = w.Token()
		// The ids must not change between the looking and the proving.
		w.Hold()
		defer w.Release()
		if err := s.lostErr(); err != nil {
			return err
		}
	}
	var err error
	for range 100 {
		// Again if somebody is just changing the ids of all threads.
		if err = e.tellOnce(w, s, seen); !errors.Is(err, announce.ErrChangedMeanwhile) {
			break
		}
	}
	return err
}

func (e *clientEnd) tellOnce(w *thread.Worn, s *Scope, seen *token.Token) error {
	if err := e.now.Take(); err != nil {
		return fmt.Errorf("looking at this thread's context: %w", err)
	}
	qos := QoS{Level: e.stated.Level, EffectiveOnly: e.stated.EffectiveOnly}
	if w != nil {
		e.limit(w, &qos)
	}
	of := source(s)
	if of == e.placed.source && e.now.Equal(&e.placed.look) && qos.Level == e.placed.level && qos.EffectiveOnly == e.placed.only && remote(w, seen) == e.placed.remote && e.knows(s, seen) {
		if s == nil {
			e.process.spoke(e, nil)
		}
		return nil
	}
	c := announce.Context{Level: qos.Level, EffectiveOnly: qos.EffectiveOnly, Source: of, At: e.written, Network: remote(w, seen)}
	if err := e.announceInScope(w, s, c); err != nil {
		if e.ended(err) {
			return e.unheard(err)
		}
		return fmt.Errorf("announcing this thread's context: %w", err)
	}
	e.placed.look, e.now = e.now, e.placed.look
	e.placed.level, e.placed.only, e.placed.source, e.placed.remote = qos.Level, qos.EffectiveOnly, of, c.Network
	e.voiceOf(s, seen)
	return nil
}

// knows reports whether the server was told last that a voice is as it is now. e.mu is held.
func (e *clientEnd) knows(s *Scope, seen *token.Token) bool {
	for _, v := range e.voices {
		if v.scope == s {
			return s == nil && v.look.Equal(&e.now) || s != nil && v.token == seen
		}
	}
	return false
}

// announceInScope announces the calling thread's context, with the way it came if that can be shown.
func (e *clientEnd) announceInScope(w *thread.Worn, s *Scope, c announce.Context) error {
	err := sendWay(e.channel, w, s)
	if err != nil {
		return err
	}
	if err = e.channel.Announce(announce.Wait, &e.now, c); errors.Is(err, announce.ErrNotNow) {
		later(e, 0)
		err = os.ErrDeadlineExceeded
	}
	return err
}

// sendWay says, for the message that comes next, which way the context of a scope came, if there is one to tell and this process
// could have become its client. The calling thread is in the scope.
func sendWay(channel *announce.Sender, w *thread.Worn, s *Scope) error {
	if s == nil || s.conn == nil && s.way() == nil {
		return nil
	}
	// Who the client's process is takes the server's rights to see, too.
	err := w.Raised(func() error { return channel.Way(announce.Wait, s.way()) })
	if errors.Is(err, thread.ErrPrivilege) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		return nil // this process speaks only for itself
	}
	return err
}

// announce tells the server of what has changed between writes. It does not wait: what can't be done now is done soon.
func (e *clientEnd) announce() {
	if thread.Current() != nil {
		// A scope took the change in. Passing it on takes this process's own rights.
		go e.announce()
		return
	}
	if !e.mu.TryLock() {
		later(e, 0)
		return
	}
	defer e.mu.Unlock()
	if e.closed || e.tracking == Static {
		return
	}
	for _, v := range e.voices {
		if v.over() {
			continue
		}
		if err := e.announceScope(v); err != nil {
			e.cannot(err, 0)
		}
	}
}

// cannot is what follows when an announcement between writes failed. If the server has ended the connection, the next write says
// so. tid is 0 if it was about a scope. e.mu is held.
func (e *clientEnd) cannot(err error, tid int32) {
	if errors.Is(err, announce.ErrNotNow) || errors.Is(err, announce.ErrChangedMeanwhile) {
		later(e, tid)
	}
}

// announceScope announces what a scope has become, with the token of the process whose context it is, from a thread that is in no
// scope. e.mu is held.
func (e *clientEnd) announceScope(v *voice) error {
	t, proof, lost := v.scope.latest()
	defer proof.Release()
	if lost != nil && v.token != nil {
		if err := e.channel.Lost(announce.AtOnce, v.scope.id); err != nil {
			return err
		}
		v.token = nil
	}
	if v.token == nil || v.token == t {
		return nil
	}
	_, network := t.Origin()
	c := announce.Context{
		Level: t.AtMost(e.stated.Level), EffectiveOnly: e.stated.EffectiveOnly || t.EffectiveOnly(),
		Source: v.scope.id, Now: true, Network: network,
	}
	err := e.pass(v.scope, t, proof, c)
	switch {
	case err == nil:
		v.token = t
	case errors.Is(err, thread.ErrPrivilege), errors.Is(err, announce.ErrTooFar):
		// The server behind must not go on as who the client was.
		if err = e.channel.Lost(announce.AtOnce, v.scope.id); err == nil {
			v.token = nil
		}
	}
	return err
}

// pass announces t, which a scope has followed to.
func (e *clientEnd) pass(s *Scope, t *token.Token, proof *announce.Proof, c announce.Context) error {
	c.Capabilities = token.AllCapabilities
	if t.UID() == 0 {
		c.Capabilities = t.CapabilitiesWithin(s.worn.ServerCapabilities())
	}
	if way := s.way(); way != nil {
		err := e.channel.Way(announce.AtOnce, way)
		if err == nil && proof != nil {
			return e.channel.Pass(announce.AtOnce, proof, c)
		}
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	// This process proves it itself, by its right to become its client, or by being who that is.
	as := announce.LookOf(t, c.Capabilities)
	own, err := proveAs(as)
	if err != nil {
		return err
	}
	defer own.Close()
	return e.channel.Prove(announce.AtOnce, own, c)
}

// latest returns what the scope has become. The proof is the caller's to release.
func (s *Scope) latest() (t *token.Token, proof *announce.Proof, lost error) {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	return s.token.Load(), s.client.proof.Hold(), s.client.lost
}
