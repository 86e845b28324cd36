package thread

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
)

// baseline is how a thread is scheduled outside of scopes. A client may change the thread that wears it, and a call of its that has
// begun then may come into effect after Leave, when the thread is anybody's. So what Enter finds is not taken for what the thread was:
// it is compared with what the thread is known to be.
//
// That is, as the process's own thread is, which wears nothing, so that what somebody does to all threads of the process holds
// (taskset -a, chrt -a, a cpuset). Or it is what the program has given this thread alone. It never changes once it is recorded.
type baseline struct {
	scheduling
	own      bool   // the program's, for this thread
	changing bool   // the program is at it
	started  uint64 // when the thread began: its id may be another's by now
}

// process returns a thread that wears nothing, ever, and shows how the process is scheduled.
var process = sync.OnceValue(func() int32 {
	id := make(chan int32)
	go func() {
		runtime.LockOSThread()
		id <- threadID()
		select {}
	}()
	return <-id
})

// errWhose asks for [Worn.locked].
var errWhose = errors.New("is this thread's scheduling its program's?")

// restScheduled has a thread that wears nothing be scheduled as it is to be.
func (w *Worn) restScheduled() error {
	now := &w.now
	if err := now.read(0); err != nil {
		return err
	}
	if w.baseline != nil && w.baseline.same(now) {
		return nil
	}
	started := startOf(w.tid)
	if b := w.baseline; b == nil || b.started != started {
		return w.firstScheduled(started)
	}
	if w.baseline.changing {
		return errors.New("the function of thread.Reschedule must not enter scopes")
	}
	if err := w.keepScheduled(); err != nil {
		return &spoiledError{err}
	}
	return nil
}

// restoreScheduling undoes what was done to the scheduling of the calling thread in the scope.
func (w *Worn) restoreScheduling() error {
	if err := w.now.read(0); err != nil {
		return &spoiledError{err}
	}
	if w.baseline.same(&w.now) {
		return nil
	}
	// Where another scope goes on, the outermost will say so.
	if err := w.keepScheduled(); err != nil && w.outer == nil {
		return &spoiledError{err}
	}
	return nil
}

// keepScheduled has the calling thread, which is scheduled as w.now says, be as its baseline says.
func (w *Worn) keepScheduled() error {
	if b := w.baseline; !b.own {
		process, err := processScheduled()
		if err != nil {
			return err
		}
		if !process.same(&b.scheduling) {
			w.baseline = setBaseline(w.tid, &baseline{scheduling: *process, started: b.started})
		}
	}
	if w.baseline.same(&w.now) {
		return nil
	}
	err := w.baseline.impose(0, &w.now)
	if err != nil && w.Raised(func() error { return w.baseline.impose(0, &w.now) }) == nil {
		return nil
	}
	return err
}

// firstScheduled is restScheduled for a thread that nothing is known of. If it is not scheduled as the process is, the program has
// done so, on a goroutine that it has locked to it; or it began on a thread that a client had changed.
func (w *Worn) firstScheduled(started uint64) error {
	now := &w.now
	process, err := processScheduled()
	if err != nil {
		return err
	}
	own := !process.same(now)
	if own && w.locked == unknown {
		return errWhose
	}
	if own && w.locked == no && process.impose(0, now) == nil {
		own, now = false, process
	}
	w.baseline = setBaseline(w.tid, &baseline{scheduling: now.clone(), own: own, started: started})
	return nil
}

func processScheduled() (*scheduling, error) {
	s := new(scheduling)
	return s, s.read(process())
}

func setBaseline(tid int32, b *baseline) *baseline {
	worn.mu.Lock()
	defer worn.mu.Unlock()
	if worn.baselines == nil {
		worn.baselines = make(map[int32]*baseline)
	}
	worn.baselines[tid] = b
	return b
}

// forget takes a thread's baseline away if it is still b.
func forget(tid int32, b *baseline) {
	worn.mu.Lock()
	defer worn.mu.Unlock()
	if worn.baselines[tid] == b {
		delete(worn.baselines, tid)
	}
}

// Reschedule calls change, which changes how the calling thread is scheduled, and has that stay: entering and leaving scopes restore
// what the thread is then. Where the program changes a thread otherwise after the thread's first scope, they undo it, since they can't tell
// it from what a client does to a thread that wears it. The caller's goroutine has to be locked to its thread, for as
// long as this is to hold, and in no scope. What is done to all threads of the process needs no Reschedule.
func Reschedule(change func() error) error {
	tid := threadID()
	if wornBy(tid) != nil {
		return errors.New("in a scope a thread's scheduling can't be changed for good: leave the scope first")
	}
	started := startOf(tid)
	setBaseline(tid, &baseline{own: true, changing: true, started: started})
	err := change()
	b := &baseline{own: true, started: started}
	if readErr := b.read(0); readErr != nil {
		return errors.Join(err, readErr)
	}
	setBaseline(tid, b)
	return err
}

// startOf returns when a thread of this process began, in clock ticks since the machine did, 0 if that can't be told.
func startOf(tid int32) uint64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
	if err != nil {
		return 0
	}
	// The second field, a name in brackets, may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0
	}
	started, _ := strconv.ParseUint(string(fields[19]), 10, 64)
	return started
}

// answer is to a question that is seldom asked.
type answer int8

const (
	unknown answer = iota
	yes
	no
)

// isLocked reports whether the calling goroutine is locked to its thread. Nothing but the head of a stack trace tells.
func isLocked() answer {
	var head [128]byte
	first, _, _ := bytes.Cut(head[:runtime.Stack(head[:], false)], []byte("\n"))
	if bytes.Contains(first, []byte("locked to thread")) {
		return yes
	}
	return no
}
