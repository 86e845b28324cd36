package thread

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/guise-project/guise/token"
)

// Worn is a token on a thread, from Enter to Leave. The zero value is ready for Enter, and after Leave for the next Enter.
// It must not be copied while worn.
type Worn struct {
	// Owner is the caller's to use, for finding its own record of what [Current] returns.
	Owner any
	// Follow asks for a token that [Worn.Change] can change. It has to be set before Enter.
	Follow bool

	token  *token.Token
	tid    int32
	outer  *Worn // what the thread wore before, nil if nothing
	base   *Worn // the outermost; its was is the server itself
	was    credentials
	groups []uint32 // of the token
	// How the thread is scheduled, and how it is to be.
	now      scheduling
	baseline *baseline
	locked   answer // the caller's goroutine, before Enter
	// What Enter changed, for Leave to put back.
	changedUID, changedGID, changedGroups bool
	changedLater                          bool // by the handler
	scopeEffective                        token.CapSet
	follower                              follower
}

// Token returns what is worn.
func (w *Worn) Token() *token.Token {
	if f := &w.follower; w.Follow {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.on {
			return f.latest
		}
	}
	return w.token
}

// Outer returns what the thread wore before and will wear again, nil if that is the process's own context.
func (w *Worn) Outer() *Worn { return w.outer }

// Enter locks the calling goroutine to its thread and makes the thread's effective ids, groups and capabilities those of t;
// the real and saved ids and the permitted capabilities stay, as the way back. It is all or nothing: on an error the thread
// is as it was. If it can't be, the process ends. If a client has changed how the thread is scheduled, and it can't be
// changed back, the goroutine stays locked to the thread, which the runtime discards when the goroutine ends.
//
// Each Enter must be followed by Leave on the same goroutine, in reverse order where they nest.
//
// The error wraps [ErrPrivilege], [token.ErrLevel], [token.ErrNotWearable] or what a system call said.
func (w *Worn) Enter(t *token.Token) error {
	if err := t.Wearable(); err != nil {
		return err
	}
	w.locked = unknown
	for {
		runtime.LockOSThread()
		err := w.enterHere(t)
		if err == nil {
			return nil
		}
		w.token = nil
		if _, ok := err.(*spoiledError); ok {
			return err
		}
		runtime.UnlockOSThread()
		if err != errWhose {
			return err
		}
		w.locked = isLocked()
	}
}

// enterHere is Enter on a goroutine that is locked to its thread.
func (w *Worn) enterHere(t *token.Token) error {
	w.token = t
	w.tid = threadID()
	w.base = w
	if w.outer, w.baseline = known(w.tid); w.outer != nil {
		w.base, w.baseline = w.outer.base, w.outer.baseline
	} else if err := w.restScheduled(); err != nil {
		return err
	}
	w.outer.park()
	if err := w.enter(t); err != nil {
		w.outer.unpark()
		w.dropLongLists()
		return err
	}
	return nil
}

// dropLongLists lets go of the memory for more groups than an ordinary account has: a Worn may be kept for its next Enter.
func (w *Worn) dropLongLists() {
	const ordinary = 1024
	for _, list := range [...]*[]uint32{&w.groups, &w.was.groups, &w.follower.groups} {
		if cap(*list) > ordinary {
			*list = nil
		}
	}
}

func (w *Worn) enter(t *token.Token) error {
	w.changedUID, w.changedGID, w.changedGroups, w.changedLater = false, false, false, false
	if err := w.was.read(); err != nil {
		return err
	}
	w.groups = t.AppendGroups(w.groups[:0])
	if err := w.permitted(t); err != nil {
		return err
	}
	if err := w.follow(); err != nil {
		return err
	}
	// Before the thread is changed: whoever looks at its ids has to know that they are not the process's own.
	setWorn(w.tid, w)
	if err := w.put(t); err != nil {
		w.leave()
		if undo := w.takeOff(); undo != nil {
			stop(fmt.Sprintf("a thread that was to act as uid %d is half changed (%v) and can't be restored: %v", t.UID(), err, undo))
		}
		setWorn(w.tid, w.outer)
		return fmt.Errorf("acting as uid %d, gid %d with %d supplementary groups: %w", t.UID(), t.GID(), len(w.groups), err)
	}
	w.in()
	return nil
}

// permitted returns an error if this process must not, or could not both ways, put t on the thread.
func (w *Worn) permitted(t *token.Token) error {
	if w.was.sameIDs(t, w.groups) {
		return nil
	}
	return w.mayBecome(t)
}

// mayBecome is permitted for a token with other ids than the thread's.
func (w *Worn) mayBecome(t *token.Token) error {
	server := &w.base.was
	switch {
	case t.UID() == 0 && server.uids.effective != 0:
		return fmt.Errorf("%w: a server that is not root never acts as uid 0, and this one is uid %d", ErrPrivilege, server.uids.effective)
	case !holdsSwitching(server.caps.Effective):
		return fmt.Errorf("%w: this process (uid %d) has not both and can't act as uid %d", ErrPrivilege, server.uids.effective, t.UID())
	case w.was.losesPermitted(t.UID()):
		return fmt.Errorf("%w: uids %d, %d, %d (real, effective, saved) leave no way back from uid %d; a set-user-ID program has to take over its effective uid as the real one first",
			ErrPrivilege, w.was.uids.real, w.was.uids.effective, w.was.uids.saved, t.UID())
	}
	return nil
}

// put changes the thread to t. Groups go first and the uid last, because changing the uid takes the right to change the
// others away.
func (w *Worn) put(t *token.Token) error {
	caps := w.was.caps
	w.scopeEffective = caps.Effective
	otherGroups := !slices.Equal(w.was.groups, w.groups)
	otherGID := w.was.gids.effective != t.GID()
	otherUID := w.was.uids.effective != t.UID()

	if (otherGroups || otherGID || otherUID) && !holdsSwitching(caps.Effective) {
		caps.Effective = caps.Permitted
		if err := setCapabilities(caps); err != nil {
			return err
		}
	}
	// What could not be changed needs no changing back, which would fail as well.
	if otherGroups {
		if err := setGroups(w.groups); err != nil {
			return err
		}
		w.changedGroups = true
	}
	if otherGID {
		if err := onlyEffective(t.GID()).setGIDs(); err != nil {
			return err
		}
		w.changedGID = true
	}
	if otherUID {
		if err := onlyEffective(t.UID()).setUIDs(); err != nil {
			return err
		}
		w.changedUID = true
		caps.Effective = w.was.effectiveAfter(caps.Effective, w.was.uids.effective, t.UID())
	}
	// The server's own capabilities are the most that anybody gets, whatever the client's are.
	w.scopeEffective = t.Capabilities().Effective & w.base.was.caps.Effective
	if caps.Effective != w.scopeEffective {
		caps.Effective = w.scopeEffective
		return setCapabilities(caps)
	}
	return nil
}

// Leave restores the thread's credentials to exactly what they were at Enter, and its scheduling to what it was outside of all
// scopes, and unlocks the goroutine.
//
// If the credentials can't be restored, or the calling thread is not the one that entered, the process ends at once:
// somebody else's identity must not run anything more. If only the scheduling can't be, Leave returns an error and the
// goroutine stays locked to the thread, which the runtime discards when the goroutine ends.
func (w *Worn) Leave() error {
	w.leave()
	if err := w.takeOff(); err != nil {
		stop(fmt.Sprintf("thread %d acted as uid %d and its own credentials can't be restored: %v", w.tid, w.token.UID(), err))
	}
	setWorn(w.tid, w.outer)
	err := w.restoreScheduling()
	w.outer.unpark()
	w.token = nil
	w.dropLongLists()
	if err != nil {
		return err
	}
	sweepLater()
	runtime.UnlockOSThread()
	return nil
}

// takeOff makes the thread's credentials what they were, from wherever in put it was left, and whatever was done to them
// since.
func (w *Worn) takeOff() error {
	was := &w.was
	// Becoming uid 0 brings the effective capabilities back by itself; everybody else has to raise them first, also who was made
	// uid 0 with fewer of them since.
	if w.changedLater || !(was.uids.effective == 0 && (was.uids.real == 0 || was.uids.saved == 0) && was.securebits&noSetuidFixup == 0 && w.changedUID) {
		if w.changedUID || w.changedGID || w.changedGroups {
			raised := was.caps
			raised.Effective = raised.Permitted
			if err := setCapabilities(raised); err != nil {
				return err
			}
		}
	}
	// The uid goes first where it brings the right to change the others, and last where it takes it away.
	if was.uids.effective == 0 {
		if err := w.restoreUIDs(); err != nil {
			return err
		}
	}
	if err := w.restoreGroups(); err != nil {
		return err
	}
	if err := w.restoreGIDs(); err != nil {
		return err
	}
	if was.uids.effective != 0 {
		if err := w.restoreUIDs(); err != nil {
			return err
		}
	}
	return w.restoreCapabilities()
}

// restoreCapabilities also finds out whether all this happened on another thread than the one that entered: asking for that
// thread's capabilities by its id costs no more than asking for one's own, and shows those of the scope if it is still in it.
func (w *Worn) restoreCapabilities() error {
	was := &w.was
	now, err := readCapabilities(w.tid)
	if err != nil {
		return err
	}
	if now == was.caps && w.scopeEffective != was.caps.Effective {
		return nil
	}
	if tid := threadID(); tid != w.tid {
		return fmt.Errorf("the scope was left on thread %d: its function unlocked the goroutine from its thread", tid)
	}
	if now != was.caps {
		return setCapabilities(was.caps)
	}
	return nil
}

func (w *Worn) restoreUIDs() error {
	if !w.changedUID {
		var now ids
		if err := now.readUIDs(); err != nil || now == w.was.uids {
			return err
		}
	}
	return w.was.uids.setUIDs()
}

func (w *Worn) restoreGIDs() error {
	if !w.changedGID {
		var now ids
		if err := now.readGIDs(); err != nil || now == w.was.gids {
			return err
		}
	}
	return w.was.gids.setGIDs()
}

func (w *Worn) restoreGroups() error {
	if !w.changedGroups {
		var err error
		if w.groups, err = readGroups(w.groups); err != nil {
			return err
		}
		if slices.Equal(w.groups, w.was.groups) {
			return nil
		}
	}
	return setGroups(w.was.groups)
}

// IDs are a user and a group.
type IDs struct{ UID, GID uint32 }

// Server returns the effective ids that the thread had before it wore anything.
func (w *Worn) Server() IDs {
	return IDs{w.base.was.uids.effective, w.base.was.gids.effective}
}
