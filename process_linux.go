package guise

import (
	"sync"
	"time"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/procevents"
	"github.com/guise-project/guise/internal/readiness"
)

// ownProcess is how changes of this process's own ids are noticed between writes. The kernel's process connector tells of them at
// once where it can be had; else somebody looks all the time.
var ownProcess processWatch

type processWatch struct {
	mu       sync.Mutex
	threads  map[int32]*speaker   // that spoke last for some connection's end, or did until a moment ago
	listener *procevents.Listener // nil where there is none
	watched  *readiness.Watch
	heard    map[int32]struct{} // threads that the listener hears of; nil if it does of all
	timer    *time.Timer        // of the next check; nil while there are no speakers
	spoken   uint64             // the last number for speaker.spoke
	ends     int                // that somebody speaks for
	paused   bool               // the listener hears nothing, because there are none
	turns    int                // how often that has changed

	// looking: from a look at a thread to the announcing of what it showed. What was seen first must not be told last.
	looking sync.Mutex
}

// speaker is a thread that has a connection's end speak for the process.
type speaker struct {
	thread *announce.Thread        // nil if it has ended, or could not be opened
	ends   map[*clientEnd]struct{} // none once another thread speaks for them, or they are closed
	seen   *announce.Look          // what all of them have announced; nil if that may not be so
	spoke  uint64                  // another number each time that one of them announces something by itself
}

const (
	// lookEvery is how often somebody looks at the threads that spoke last where there is no process connector.
	lookEvery = 10 * time.Millisecond
	// checkEvery is how often although there is one: anybody on the machine may silence it, and it does not tell of groups.
	checkEvery = 2 * time.Second
)

// eventsLimit is how often events are looked into at once. A thread that spoke may enter scopes afterwards, which make events of no
// interest.
var eventsLimit = readiness.Limit{Times: 16, Interval: 2 * time.Millisecond}

// followProcess has an end told of changes of the calling thread, which is tid, and of no other. What changed before that, and after the
// look that was announced, is announced soon. e.mu is held, and e.now not in use.
func followProcess(e *clientEnd, old, tid int32) {
	if ownProcess.follow(e, old, tid) && e.changedSince() {
		later(e, tid)
	}
}

// changedSince reports whether the calling thread is another than was announced last, or may be.
func (e *clientEnd) changedSince() bool {
	return e.now.Take() != nil || !e.now.Equal(&e.placed.look)
}

// follow reports whether the end might have missed a change of the thread's: nobody heard of it, or it was told to the thread's other ends
// alone.
func (p *processWatch) follow(e *clientEnd, old, tid int32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.threads == nil {
		p.threads = make(map[int32]*speaker)
	}
	s := p.threads[tid]
	if s == nil {
		s = &speaker{ends: make(map[*clientEnd]struct{})}
		s.open(tid)
		p.threads[tid] = s
	}
	_, known := s.ends[e]
	if !known {
		s.ends[e] = struct{}{}
		p.ends++
	}
	if old != tid {
		p.remove(e, old)
	}
	s.seen = nil
	p.spoken++
	s.spoke = p.spoken
	if p.timer == nil {
		p.start()
	}
	p.pause(false)
	return p.hearOf(tid) || !known
}

// hearOf has the listener hear of a thread, and not of all those whose scopes make events all the time. It reports whether it did not
// before. p.mu is held.
func (p *processWatch) hearOf(tid int32) bool {
	if _, ok := p.heard[tid]; ok || p.listener == nil {
		return false
	}
	if p.heard == nil || len(p.heard) >= procevents.MostThreads {
		p.forgetSilent()
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

// unfollowProcess leaves the closing of the listener, and of what is open of the thread, to the next check: connections that come and go,
// one at a time, would otherwise open and close it all each time, which costs more than the rest of a connection.
func unfollowProcess(e *clientEnd, tid int32) {
	ownProcess.mu.Lock()
	defer ownProcess.mu.Unlock()
	ownProcess.remove(e, tid)
}

func (p *processWatch) remove(e *clientEnd, tid int32) {
	s := p.threads[tid]
	if s == nil {
		return
	}
	if _, ok := s.ends[e]; !ok {
		return
	}
	delete(s.ends, e)
	if p.ends--; p.ends == 0 {
		p.pause(true)
	}
}

// pause has the listener hear nothing, or again: a program that has closed its connections may end before the next check, and the kernel would
// make events for it for good. p.mu is held.
func (p *processWatch) pause(paused bool) {
	if p.listener == nil || p.paused == paused {
		return
	}
	turn := p.listener.Resume
	if paused {
		turn = p.listener.Pause
	}
	p.paused = paused
	p.turns++
	if turn() != nil {
		p.stopListening()
		p.timer.Reset(lookEvery)
	}
}

// forgetSilent forgets the threads that speak for no end any more. p.mu is held.
func (p *processWatch) forgetSilent() {
	for tid, s := range p.threads {
		if len(s.ends) > 0 {
			continue
		}
		delete(p.threads, tid)
		if s.thread != nil {
			s.thread.Close()
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
		p.listener, p.watched, p.heard, p.paused = nil, nil, nil, false
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
		if s := p.threads[tid]; s != nil && len(s.ends) > 0 {
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

// check looks without having been told, or ends the listening if there is nobody to look at.
func (p *processWatch) check() {
	if p.rest() {
		return
	}
	unheard := p.lookAtAll()
	p.mu.Lock()
	listener, turns := p.listener, p.turns
	p.mu.Unlock()
	silent := unheard && listener != nil && listener.Prove() != nil // which waits if it is silent
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		return
	}
	if silent && p.listener == listener && !p.paused && p.turns == turns {
		p.stopListening()
	}
	p.timer.Reset(p.interval())
}

// rest ends the listening and the looking if no thread speaks, and reports whether it did.
func (p *processWatch) rest() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetSilent()
	if len(p.threads) > 0 {
		return false
	}
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.stopListening()
	return true
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
