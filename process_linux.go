package guise

import (
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/procevents"
	"github.com/guise-project/guise/internal/readiness"
	"github.com/guise-project/guise/thread"
)

// ownProcess is how changes of this process's own ids are noticed between writes. The kernel's process connector tells of them at
// once where it can be had; else somebody looks all the time.
var ownProcess processWatch

type processWatch struct {
	mu       sync.Mutex
	threads  map[int32]*speaker   // that spoke last for some connection's end
	listener *procevents.Listener // nil where there is none
	watched  *readiness.Watch
	heard    map[int32]struct{} // threads that the listener hears of; nil if it does of all
	timer    *time.Timer        // nil while there are no speakers
	spoken   uint64             // the last number for speaker.spoke

	// looking: from a look at a thread to the announcing of what it showed. What was seen first must not be told last.
	looking sync.Mutex
}

// speaker is a thread that has a connection's end speak for the process.
type speaker struct {
	thread *announce.Thread // nil if it has ended, or could not be opened
	ends   map[*clientEnd]struct{}
	seen   *announce.Look // what all of them have announced; nil if that may not be so
	spoke  uint64         // another number each time that one of them announces something by itself
}

const (
	// lookEvery is how often somebody looks at the threads that spoke last where there is no process connector.
	lookEvery = 10 * time.Millisecond
	// checkEvery is how often although there is one: anybody on the machine may silence it, and it does not tell of groups.
	checkEvery = 2 * time.Second
)

// eventsLimit is how often events are looked into at once. The scopes of a server that is a client too make events, and that they are
// of no interest is not known before.
var eventsLimit = readiness.Limit{Times: 16, Interval: 2 * time.Millisecond}

// followProcess has an end told of changes of a thread of this process, and of no other. What changed before that is looked at soon.
func followProcess(e *clientEnd, old, tid int32) {
	if ownProcess.follow(e, old, tid) || old == 0 {
		later(e, tid)
	}
}

// follow reports whether the process connector was not heard about the thread before.
func (p *processWatch) follow(e *clientEnd, old, tid int32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old != tid {
		p.remove(e, old)
	}
	if p.threads == nil {
		p.threads = make(map[int32]*speaker)
	}
	s := p.threads[tid]
	if s == nil {
		s = &speaker{ends: make(map[*clientEnd]struct{})}
		s.open(tid)
		p.threads[tid] = s
	}
	s.ends[e] = struct{}{}
	s.seen = nil
	p.spoken++
	s.spoke = p.spoken
	if p.timer == nil {
		p.start()
	}
	return p.hearOf(tid)
}

// hearOf has the listener hear of a thread, and not of all those whose scopes make events all the time. It reports whether it did not
// before. p.mu is held.
func (p *processWatch) hearOf(tid int32) bool {
	if _, ok := p.heard[tid]; ok || p.listener == nil {
		return false
	}
	if p.heard == nil || len(p.heard) == procevents.MostThreads {
		p.heard = make(map[int32]struct{})
		for tid := range p.threads {
			p.heard[tid] = struct{}{}
		}
	}
	p.heard[tid] = struct{}{}
	threads := make([]int32, 0, len(p.heard))
	for tid := range p.heard {
		threads = append(threads, tid)
	}
	if p.listener.Only(threads) != nil { // too many
		_ = p.listener.All()
	}
	return true
}

// open has the thread ready to be looked at, if it is there.
func (s *speaker) open(tid int32) {
	if t, err := announce.OpenThread(tid); err == nil {
		s.thread = t
	}
}

func unfollowProcess(e *clientEnd, tid int32) {
	p := &ownProcess
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(e, tid)
	if len(p.threads) == 0 && p.timer != nil {
		p.timer.Stop()
		p.timer = nil
		p.stopListening()
	}
}

func (p *processWatch) remove(e *clientEnd, tid int32) {
	if s := p.threads[tid]; s != nil {
		delete(s.ends, e)
		if len(s.ends) == 0 {
			delete(p.threads, tid)
			if s.thread != nil {
				s.thread.Close()
			}
		}
	}
}

// start begins to listen, and to look. p.mu is held.
func (p *processWatch) start() {
	if procevents.Available() == nil {
		if l, err := procevents.Listen(); err == nil {
			if p.watched, err = readiness.Add(l.Descriptor(), eventsLimit, p.hear); err == nil {
				p.listener = l
			} else {
				l.Close()
			}
		}
	}
	p.timer = time.AfterFunc(p.interval(), p.check)
}

func (p *processWatch) interval() time.Duration {
	if p.listener != nil {
		return checkEvery
	}
	return lookEvery
}

func (p *processWatch) stopListening() {
	if p.listener != nil {
		p.watched.Remove()
		p.listener.Close()
		p.listener, p.watched, p.heard = nil, nil, nil
	}
}

// hear takes in what the process connector says. It runs on the watching goroutine.
func (p *processWatch) hear() {
	p.mu.Lock()
	if p.listener == nil {
		p.mu.Unlock()
		return
	}
	var changed []int32
	lost, err := p.listener.Take(func(tid int32) {
		if p.threads[tid] != nil {
			changed = append(changed, tid)
		}
	})
	if err != nil {
		p.stopListening()
		p.timer.Reset(lookEvery)
	}
	if lost || err != nil {
		changed = p.all()
	}
	p.mu.Unlock()
	for _, tid := range changed {
		p.look(tid)
	}
}

func (p *processWatch) all() []int32 {
	threads := make([]int32, 0, len(p.threads))
	for tid := range p.threads {
		threads = append(threads, tid)
	}
	return threads
}

// check looks without having been told.
func (p *processWatch) check() {
	unheard := p.lookAtAll()
	p.mu.Lock()
	listener := p.listener
	p.mu.Unlock()
	silent := unheard && listener != nil && listener.Prove() != nil // which waits if it is silent
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		return
	}
	if silent && p.listener == listener {
		p.stopListening()
	}
	p.timer.Reset(p.interval())
}

// lookAtAll reports whether something was new.
func (p *processWatch) lookAtAll() (unheard bool) {
	p.mu.Lock()
	threads := p.all()
	p.mu.Unlock()
	for _, tid := range threads {
		unheard = p.look(tid) || unheard
	}
	return unheard
}

// look looks at a thread that spoke last for some ends, and has announced what is new. It reports whether anything was.
func (p *processWatch) look(tid int32) (isNew bool) {
	p.looking.Lock()
	defer p.looking.Unlock()
	p.mu.Lock()
	s := p.threads[tid]
	if s == nil {
		p.mu.Unlock()
		return false
	}
	spoke := s.spoke
	if s.thread == nil {
		s.open(tid)
	}
	t := s.thread
	p.mu.Unlock()
	if t == nil {
		return false
	}
	seen := new(announce.Look)
	if ok, err := lookAt(t, tid, seen); !ok {
		if err != nil { // it has ended: the last context stands, until another of that number speaks
			p.forget(tid, t)
		}
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
	if e.closed || v == nil || v.tid != tid || v.look.Equal(seen) {
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
