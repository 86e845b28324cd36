package guise

import (
	"errors"
	"runtime"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/thread"
)

// look looks at a thread that spoke last for some ends, and has announced what is new. It reports whether anything was.
func (p *processWatch) look(tid int32) (isNew bool) {
	p.looking.Lock()
	defer p.looking.Unlock()
	seen := new(announce.Look)
	spoke, ok := p.lookAtSpeaker(tid, seen)
	if !ok {
		return false
	}
	ends := p.untold(tid, seen)
	if len(ends) == 0 {
		return false
	}
	proof, err := proveAs(seen)
	switch {
	case err == nil:
		defer proof.Close()
		for _, e := range ends {
			e.announceProcess(tid, spoke, seen, proof)
		}
	case errors.Is(err, announce.ErrChangedMeanwhile), errors.Is(err, thread.ErrChangedMeanwhile):
		later(ends[0], tid)
	default:
		// Out of descriptors, or not permitted: the next check tries again, and the next write.
		p.unseen(tid)
	}
	return true
}

// between locks e.mu while no look has it, which takes a moment. It returns false if somebody else has, such as a write that waits for the
// server.
func (p *processWatch) between(e *clientEnd) bool {
	if e.mu.TryLock() {
		return true
	}
	p.looking.Lock()
	defer p.looking.Unlock()
	return e.mu.TryLock()
}

// lookAtSpeaker looks at a thread, and reports whether there is something to see. spoke is the thread's before that.
func (p *processWatch) lookAtSpeaker(tid int32, seen *announce.Look) (spoke uint64, ok bool) {
	for range 2 { // a thread may have ended, and another with its number speak now
		p.mu.Lock()
		s := p.threads[tid]
		if s == nil {
			p.mu.Unlock()
			return 0, false
		}
		spoke = s.spoke
		if s.thread == nil {
			s.open(tid)
		}
		t := s.thread
		p.mu.Unlock()
		if t == nil {
			return 0, false
		}
		ok, err := lookAt(t, tid, seen)
		if err == nil {
			return spoke, ok
		}
		p.forget(tid, t)
	}
	return 0, false // it has ended: the last context stands, until another of that number speaks
}

// proveAs proves a context that a thread of this process has, this one or another.
func proveAs(seen *announce.Look) (announce.Own, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var own announce.Look
	if err := own.Take(); err != nil {
		return announce.Own{}, err
	}
	if own.Equal(seen) {
		return seen.Prove()
	}
	t, err := seen.Token()
	if err != nil {
		return announce.Own{}, err
	}
	near, far, err := thread.SocketpairAs(t)
	if err != nil {
		return announce.Own{}, err
	}
	return seen.ProveWith(near, far)
}

// lookAt looks at a thread's own context, and reports whether there is one: a scope's is not the process's.
func lookAt(t *announce.Thread, tid int32, seen *announce.Look) (ok bool, err error) {
	ok = thread.Unworn(tid, func() { err = t.Look(seen) })
	return ok && err == nil, err
}

// forget has a thread opened again at the next look.
func (p *processWatch) forget(tid int32, t *announce.Thread) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.threads[tid]; s != nil && s.thread == t {
		s.thread = nil
		t.Close()
	}
}

// untold returns the ends that have announced something else of a thread than what was seen.
func (p *processWatch) untold(tid int32, seen *announce.Look) []*clientEnd {
	p.mu.Lock()
	s := p.threads[tid]
	if s == nil || s.seen != nil && s.seen.Equal(seen) {
		p.mu.Unlock()
		return nil
	}
	s.seen = seen // unless somebody speaks meanwhile
	ends := make([]*clientEnd, 0, len(s.ends))
	for e := range s.ends {
		ends = append(ends, e)
	}
	p.mu.Unlock()
	untold := ends[:0]
	for _, e := range ends {
		if e.processDiffers(tid, seen) {
			untold = append(untold, e)
		}
	}
	return untold
}

// unseen makes the next look at a thread ask all of its ends.
func (p *processWatch) unseen(tid int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.threads[tid]; s != nil {
		s.seen = nil
	}
}

// spokeSince reports whether one of a thread's ends has announced something by itself since then.
func (p *processWatch) spokeSince(tid int32, then uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.threads[tid]
	return s == nil || s.spoke != then
}

// processDiffers reports whether the server was told of another context of the process, whose voice is thread tid, than look.
func (e *clientEnd) processDiffers(tid int32, look *announce.Look) bool {
	if !e.mu.TryLock() {
		later(e, tid)
		return false
	}
	defer e.mu.Unlock()
	v := e.process
	return v != nil && v.tid == tid && !v.look.Equal(look)
}

// announceProcess announces what was seen of thread tid, unless a write has announced something since: what was seen before that is
// older.
func (e *clientEnd) announceProcess(tid int32, spoke uint64, seen *announce.Look, proof announce.Own) {
	if !e.mu.TryLock() {
		later(e, tid)
		return
	}
	defer e.mu.Unlock()
	v := e.process
	if e.closed || e.looked || v == nil || v.tid != tid || v.look.Equal(seen) {
		return
	}
	if ownProcess.spokeSince(tid, spoke) {
		later(e, tid)
		return
	}
	c := announce.Context{Level: e.stated.Level, EffectiveOnly: e.stated.EffectiveOnly, Now: true}
	if err := e.channel.Prove(announce.AtOnce, proof, c); err != nil {
		e.cannot(err, tid)
		return
	}
	v.look.CopyFrom(seen)
}
