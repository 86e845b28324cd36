package thread

import (
	"sync"
	"sync/atomic"

	"github.com/guise-project/guise/internal/wearing"
)

func init() {
	wearing.Worn = func() any {
		if w := Current(); w != nil {
			return w.Token()
		}
		return nil
	}
}

// worn has what each thread of this process wears, by thread id, innermost first.
var worn struct {
	any     atomic.Int32 // threads in the map: 0 spares everybody else the lock
	mu      sync.Mutex
	threads map[int32]*Worn
	// baselines are of the threads that have worn something, by thread id: see sweep for those that have ended.
	baselines map[int32]*baseline
}

// Current returns the innermost of what the calling thread wears, nil if it wears nothing. The caller's goroutine has to be
// locked to its thread for the answer to stay true, which inside a scope it is.
func Current() *Worn {
	if worn.any.Load() == 0 {
		return nil
	}
	return wornBy(threadID())
}

func wornBy(tid int32) *Worn {
	worn.mu.Lock()
	defer worn.mu.Unlock()
	return worn.threads[tid]
}

// known returns what thread tid wears, and its baseline.
func known(tid int32) (*Worn, *baseline) {
	worn.mu.Lock()
	defer worn.mu.Unlock()
	return worn.threads[tid], worn.baselines[tid]
}

// setWorn records that thread tid wears w, nothing if w is nil.
func setWorn(tid int32, w *Worn) {
	worn.mu.Lock()
	defer worn.mu.Unlock()
	if w == nil {
		delete(worn.threads, tid)
	} else {
		if worn.threads == nil {
			worn.threads = make(map[int32]*Worn)
		}
		worn.threads[tid] = w
	}
	worn.any.Store(int32(len(worn.threads)))
}

// Unworn calls f if thread tid of this process wears no token, and keeps it, and all others, from putting one on meanwhile. It
// reports whether it called f.
func Unworn(tid int32, f func()) bool {
	worn.mu.Lock()
	defer worn.mu.Unlock()
	if worn.threads[tid] != nil {
		return false
	}
	f()
	return true
}

// ID returns the calling thread's id.
func ID() int32 { return threadID() }
