package thread

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/token"
)

// ErrCannotFollow says that worn tokens can't be changed in this process while other code runs.
var ErrCannotFollow = errors.New("threads can't be made to follow in this process")

// Following returns nil if a worn token can be changed in this process, and otherwise an error that wraps [ErrCannotFollow] and
// says why not. The first call takes signal 34 and tries it out.
func Following() error { return following() }

var following = sync.OnceValue(func() error {
	err := installHandler()
	if err == nil {
		err = tryHandler()
	}
	if err == nil {
		err = tryCalls()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCannotFollow, err)
	}
	return nil
})

// follower is what a worn token that may be changed has besides. docs/following.md says how it is kept safe.
type follower struct {
	mu    sync.Mutex // excludes Change from entering, leaving, and nesting
	index uint32     // of the slot
	on    bool       // the slot is this token's
	// What was published, and not found done yet. The handler may be reading the last but those that came back.
	published []*record
	latest    *token.Token // what the thread wears, or will once the handler has run
	effective token.CapSet // and what it has of capabilities then
	groups    []uint32
	unsent    bool // the signal for what is in the slot could not be sent
}

// Change makes a worn token another one, whatever the thread is doing: at once if it runs code of a scope, and at the latest before
// it runs any again. It may be called by any goroutine, and does not wait for the thread.
//
// Only a token that was entered with Follow set can be changed, where [Following] returns nil; else, and after Leave, the error
// wraps [ErrCannotFollow]. It wraps [ErrPrivilege], [token.ErrLevel] or [token.ErrNotWearable] if the thread must not wear t. The
// thread keeps what it wears then.
func (w *Worn) Change(t *token.Token) error {
	if err := t.Wearable(); err != nil {
		return err
	}
	f := &w.follower
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.on {
		return ErrCannotFollow
	}
	f.groups = t.AppendGroups(f.groups[:0])
	server := &w.base.was
	effective := t.Capabilities().Effective & server.caps.Effective
	if f.latest.SameIDs(t) && effective == f.effective {
		f.latest = t
		return nil
	}
	if err := w.mayBecome(t); err != nil {
		return err
	}
	if err := handlerInPlace(); err != nil {
		return err
	}
	f.sweep()
	r, err := newRecord(t, f.groups, server.caps, effective)
	if err != nil {
		return err
	}
	f.published = append(f.published, r)
	f.latest, f.effective = t, effective
	s := slotAt(f.index)
	if old := s.publish(r); old != nil {
		// Its signal is still to come, signalLater's if need be, or the thread will take what is there by itself.
		f.release(old)
		return nil
	}
	w.signal()
	return nil
}

// signal has the handler look at the slot if the thread is where it may. f.mu is held.
func (w *Worn) signal() {
	f := &w.follower
	f.unsent = false
	if atomic.LoadInt32(&slotAt(f.index).state) == slotIn && !w.trySignal() {
		f.unsent = true
		go w.signalLater()
	}
}

// trySignal returns false if too many signals are queued for this user. A thread that can't be signalled at all must not go on as
// who its client was.
func (w *Worn) trySignal() bool {
	switch e := signalThread(w.tid, w.follower.index); e {
	case 0:
		return true
	case unix.EAGAIN:
		return false
	default:
		stop(fmt.Sprintf("thread %d can't be made to follow its client: %v", w.tid, failed("rt_tgsigqueueinfo", e)))
		return false
	}
}

// signalLater tries again: too many signals were queued for this user.
func (w *Worn) signalLater() {
	f := &w.follower
	for {
		time.Sleep(time.Millisecond)
		f.mu.Lock()
		again := f.unsent && f.on
		if again {
			f.unsent = !w.trySignal()
			again = f.unsent
		}
		f.mu.Unlock()
		if !again {
			return
		}
	}
}

// sweep frees what the handler has done with.
func (f *follower) sweep() {
	kept := f.published[:0]
	for _, r := range f.published {
		if r.isDone() {
			r.free()
		} else {
			kept = append(kept, r)
		}
	}
	f.published = kept
}

// release frees a record that came back without having been taken.
func (f *follower) release(r *record) {
	for i, p := range f.published {
		if p == r {
			f.published = append(f.published[:i], f.published[i+1:]...)
			break
		}
	}
	r.free()
}

// follow begins before the thread is changed. It takes a slot where the token is to follow.
func (w *Worn) follow() error {
	if !w.Follow || following() != nil {
		return nil
	}
	index, err := takeSlot(w.tid)
	if err != nil {
		return err
	}
	f := &w.follower
	f.mu.Lock() // an earlier signalLater may still be at it
	defer f.mu.Unlock()
	f.index, f.on = index, true
	f.latest, f.effective = w.token, w.token.Capabilities().Effective&w.base.was.caps.Effective
	f.published, f.unsent = f.published[:0], false
	return nil
}

// in lets the handler change the thread from now on, and does what Change has asked for since follow.
func (w *Worn) in() { w.unpark() }

// leave keeps the handler from changing the thread from now on, and Change from trying.
func (w *Worn) leave() {
	f := &w.follower
	if !f.on {
		return
	}
	s := slotAt(f.index)
	s.setState(slotBusy)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on, f.unsent = false, false
	s.take()
	changed := s.wasChanged()
	if (changed || len(f.published) > 0) && threadID() != w.tid {
		stop(fmt.Sprintf("the scope of thread %d was left on thread %d: its function unlocked the goroutine from its thread", w.tid, threadID()))
	}
	// The handler runs on this very thread, so it is not reading anything.
	for _, r := range f.published {
		r.free()
	}
	f.published = f.published[:0]
	if changed {
		w.changedUID, w.changedGID, w.changedGroups, w.changedLater = true, true, true, true
		w.scopeEffective = w.was.caps.Effective // says nothing about the thread any more
	}
	releaseSlot(f.index)
}

// Hold makes the thread wear the latest token and keeps it from changing until [Worn.Release], for what takes several system calls
// under one context. It is for the thread that wears w, with w innermost.
func (w *Worn) Hold() {
	w.park()
	if w.follower.on {
		w.catchUp()
	}
}

// Release ends a [Worn.Hold].
func (w *Worn) Release() { w.unpark() }

// park keeps the handler from changing the thread on behalf of w while another token is put on, worn, and taken off.
func (w *Worn) park() {
	if w == nil || !w.follower.on {
		return
	}
	w.follower.mu.Lock()
	slotAt(w.follower.index).setState(slotBusy)
	w.follower.mu.Unlock()
}

// unpark makes w what the thread wears again, as it has become meanwhile. The process ends if it can't.
func (w *Worn) unpark() {
	if w == nil || !w.follower.on {
		return
	}
	w.follower.mu.Lock()
	defer w.follower.mu.Unlock()
	w.catchUpLocked()
	slotAt(w.follower.index).setState(slotIn)
}

func (w *Worn) catchUp() {
	w.follower.mu.Lock()
	defer w.follower.mu.Unlock()
	w.catchUpLocked()
}

// catchUpLocked does what the handler would have done while the slot was busy.
func (w *Worn) catchUpLocked() {
	f := &w.follower
	s := slotAt(f.index)
	f.unsent = false
	r := s.take()
	if r == nil {
		return
	}
	atomic.StoreInt32(&s.changed, 1)
	if err := r.put(); err != nil {
		stop(fmt.Sprintf("thread %d can't follow its client: %v", w.tid, err))
	}
	f.release(r)
}
