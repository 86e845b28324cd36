package thread

import (
	"maps"
	"sync/atomic"
	"time"
)

// A thread that a client has changed after its last scope is mended by nobody's Enter. So all that have been in scopes are looked at
// now and then: a second after a scope, and ever more seldom until there is another.
const (
	firstSweep = time.Second
	lastSweep  = 64 * time.Second
)

var sweeps struct {
	set     atomic.Bool // the next one is
	scopes  atomic.Bool // since the last one
	pending time.Duration
}

// sweepLater is for whoever leaves a scope.
func sweepLater() {
	if !sweeps.scopes.Load() {
		sweeps.scopes.Store(true)
	}
	if !sweeps.set.Load() && sweeps.set.CompareAndSwap(false, true) {
		sweeps.pending = firstSweep
		time.AfterFunc(firstSweep, sweepAgain)
	}
}

func sweepAgain() {
	if sweeps.scopes.Swap(false) {
		sweeps.pending = firstSweep
	} else if sweeps.pending *= 2; sweeps.pending > lastSweep {
		sweep()
		sweeps.set.Store(false)
		if sweeps.scopes.Load() {
			sweepLater()
		}
		return
	}
	sweep()
	time.AfterFunc(sweeps.pending, sweepAgain)
}

// sweep has all threads that have been in a scope, and are in none, be scheduled as they are to be, as far as it can: where it can't,
// Enter will say so.
func sweep() {
	worn.mu.Lock()
	threads := maps.Clone(worn.baselines)
	worn.mu.Unlock()
	process, err := processScheduled()
	if err != nil {
		return
	}
	var now scheduling
	for tid, b := range threads {
		err := now.read(tid)
		if err == nil && now.same(b.wanted(process)) {
			continue
		}
		if b.started == 0 || startOf(tid) != b.started {
			forget(tid, b) // it has ended, and its number may be that of a thread of any process
			continue
		}
		Unworn(tid, func() {
			if b = worn.baselines[tid]; b == nil || b.changing || now.read(tid) != nil {
				return
			}
			s := b.wanted(process)
			if s.impose(tid, &now) == nil && s == process {
				worn.baselines[tid] = &baseline{scheduling: *s, started: b.started}
			}
		})
	}
}

// wanted is how a thread is to be scheduled in a process that is scheduled as process says.
func (b *baseline) wanted(process *scheduling) *scheduling {
	if b.own {
		return &b.scheduling
	}
	return process
}
