package guise

import (
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// follower is what a scope has that follows its client.
type follower struct {
	mu       sync.Mutex
	threads  []*thread.Worn  // that are in the scope
	proof    *announce.Proof // of the context that the scope has, nil if the kernel has proved it otherwise
	lost     error           // why the scope is nobody's
	changed  chan struct{}   // closed at the next change; nil while nobody asks
	ends     []*clientEnd    // of connections on which somebody has spoken in the scope
	programs *programs       // nil while there are none
}

func (f *follower) begin(proof *announce.Proof) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.proof = proof.Hold()
	f.lost = nil
	f.threads = f.threads[:0]
}

// end is what is left to do when no thread is in the scope any more. Connections keep the last context.
func (f *follower) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.proof.Release()
	f.proof = nil
	f.ends = nil
	f.programs = nil
}

// entered has a thread follow from now on that has entered with t.
func (s *Scope) entered(w *thread.Worn, t *token.Token) {
	f := &s.client
	f.mu.Lock()
	defer f.mu.Unlock()
	f.threads = append(f.threads, w)
	if now := s.token.Load(); now != t {
		s.change([]*thread.Worn{w}, now)
	}
}

// leaving ends that.
func (s *Scope) leaving(w *thread.Worn) {
	f := &s.client
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.threads, w); i >= 0 {
		f.threads = slices.Delete(f.threads, i, i+1)
	}
}

// follow makes the scope's client another context, or nobody's if t is nil: its threads, its programs, and what hangs on it. It
// waits for none of them.
func (s *Scope) follow(t *token.Token, proof *announce.Proof) {
	f := &s.client
	f.mu.Lock()
	if f.lost != nil || s.ended.Load() { // the latter: just before the connection forgets it
		f.mu.Unlock()
		return
	}
	if t == nil {
		f.lost = ErrContextLost
		t = s.conn.server.listener.nobody
	}
	f.proof.Release()
	f.proof = proof.Hold()
	s.token.Store(t)
	s.change(f.threads, t)
	f.endPrograms() // first: who hears of the change starts none as who the client was
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
	ends := slices.Clone(f.ends)
	f.mu.Unlock()
	for _, e := range ends {
		e.announce()
	}
}

// change changes threads of the scope to t, or to nobody if that can't be. f.mu is held.
func (s *Scope) change(threads []*thread.Worn, t *token.Token) {
	for _, w := range threads {
		err := w.Change(t)
		switch {
		case err == nil:
			continue
		case errors.Is(err, thread.ErrCannotFollow):
			// At the next entry, then: the listener has said so.
			s.token.Store(w.Token())
			return
		}
		if s.client.lost == nil {
			s.client.lost = err
		}
		s.conn.server.listener.log(slog.LevelWarn, s.conn.server.peer.UID(), "a scope can't follow its client", "client", t, "error", err)
		nobody := s.conn.server.listener.nobody
		s.token.Store(nobody)
		for _, w := range s.client.threads {
			if err := w.Change(nobody); errors.Is(err, thread.ErrPrivilege) {
				// A server without privileges acts with its own rights alone, and can't lose them.
				s.token.Store(w.Token())
			} else if err != nil && !errors.Is(err, thread.ErrCannotFollow) {
				thread.Stop("a scope whose client's context is lost can't be made nobody's: " + err.Error())
			}
		}
		return
	}
}

// Changed returns a channel that is closed when the client's context becomes another one than now, which the thread has followed
// by then; with static tracking, and in a scope of [RunAs], it never is. Ask again for the next change.
//
// It is for functions that have to do something about it themselves, such as opening a file again: rights of what is open
// already stay.
func (s *Scope) Changed() <-chan struct{} {
	f := &s.client
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	s.kept.Store(true)
	return f.changed
}

// lostErr returns why the scope is nobody's, nil if it is not.
func (s *Scope) lostErr() error {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	return s.client.lost
}

// way returns how the scope's context came to this process, nil if it did not come from a client.
func (s *Scope) way() *announce.Way {
	t := s.token.Load()
	w := &announce.Way{Hops: t.Via()}
	origin, network := t.Origin()
	if network {
		w.Origin = &origin
	}
	switch {
	case len(w.Hops) > 0 || t.Source().Kind == token.FromNetwork:
		return w
	case s.conn != nil:
		w.Hops = []token.Hop{s.conn.server.client(s.conn)}
		return w
	case t.Source().Kind == token.FromPeer, t.Source().Kind == token.FromProof:
		w.Hops = []token.Hop{{PID: t.Source().PID, UID: token.UnknownHop.UID, GID: token.UnknownHop.GID}}
		return w
	}
	return nil
}
