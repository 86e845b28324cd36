// Package readiness waits for many descriptors on one goroutine, for what has to be done at once without anybody waiting for it. It
// gives nobody more of that goroutine's time than the others.
//
// The goroutine waits in epoll_wait(2) rather than in the runtime's poller: it is woken by the kernel itself, not by another
// thread of this process, and a descriptor costs neither a goroutine nor an os.File. Once started it stays.
package readiness

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limit is how often a descriptor is served in an interval. It rests for what is left of the interval then.
type Limit struct {
	Times    int
	Interval time.Duration
}

// Watch is a descriptor that is waited for. Its methods may be called by any goroutine, also by its own function.
type Watch struct {
	fd    int
	limit Limit
	ready func()
	stuck func() // may be nil
	id    uint64

	// Guarded by watcher.mu.
	removed, suspended, resting bool
	window                      time.Time // the interval that served counts in began then
	served                      int
}

var watcher struct {
	mu      sync.Mutex
	epoll   int // 0 before the first
	wake    int // eventfd
	next    uint64
	watches map[uint64]*Watch
	resting []*Watch
	guard   guard
}

// Add has ready called on the watching goroutine whenever fd is readable or has ended, until Remove. ready must not wait for
// anything. fd stays the caller's, who closes it after Remove.
func Add(fd int, limit Limit, ready func()) (*Watch, error) {
	return AddStranger(fd, limit, ready, nil)
}

// AddStranger is [Add] for a descriptor of which a stranger may have a copy, and with it the power to have ready wait after all. Then another
// goroutine goes on with the others, and stuck, if not nil, is called, which must not wait, nor use this package.
func AddStranger(fd int, limit Limit, ready, stuck func()) (*Watch, error) {
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	if err := start(); err != nil {
		return nil, err
	}
	watcher.next++
	w := &Watch{fd: fd, limit: limit, ready: ready, stuck: stuck, id: watcher.next}
	if err := w.control(unix.EPOLL_CTL_ADD); err != nil {
		return nil, fmt.Errorf("waiting for a descriptor: %w", err)
	}
	watcher.watches[w.id] = w
	return w, nil
}

// Remove ends the watching. ready is not called any more, but a call may be under way.
func (w *Watch) Remove() {
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	if w.removed {
		return
	}
	if !w.suspended && !w.resting {
		_ = w.control(unix.EPOLL_CTL_DEL)
	}
	w.removed = true
	delete(watcher.watches, w.id)
}

// Suspend stops calling ready until Resume.
func (w *Watch) Suspend() { w.setSuspended(true) }

// Resume is the reverse of Suspend.
func (w *Watch) Resume() { w.setSuspended(false) }

// Charge counts what ready has done as so many times more. What is over the limit is made up for in the intervals that follow.
func (w *Watch) Charge(times int) {
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	w.served += times
}

func (w *Watch) setSuspended(suspended bool) {
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	if w.removed || w.suspended == suspended {
		return
	}
	w.suspended = suspended
	if w.resting {
		return
	}
	if suspended {
		_ = w.control(unix.EPOLL_CTL_DEL)
	} else {
		w.add()
	}
}

// add waits for the descriptor again. It was waited for before, so this fails only for want of memory: it is tried again then.
func (w *Watch) add() {
	if w.control(unix.EPOLL_CTL_ADD) != nil {
		w.rest(time.Now())
	}
}

func (w *Watch) rest(now time.Time) {
	w.resting, w.window = true, now
	watcher.resting = append(watcher.resting, w)
	if len(watcher.resting) == 1 {
		wakeUp()
	}
}

func (w *Watch) control(op int) error {
	// With the descriptor's end the kernel says EPOLLHUP in any case.
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(w.id), Pad: int32(w.id >> 32)}
	return unix.EpollCtl(watcher.epoll, op, w.fd, &event)
}

func start() error {
	if watcher.epoll != 0 {
		return nil
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN})
		if err != nil {
			unix.Close(wake)
		}
	}
	if err != nil {
		unix.Close(epoll)
		return fmt.Errorf("making something to wait with: %w", err)
	}
	watcher.epoll, watcher.wake = epoll, wake
	watcher.watches = make(map[uint64]*Watch)
	go watch(watcher.guard.generation)
	return nil
}

// wakeUp makes the watching goroutine look at how long to wait.
func wakeUp() {
	one := [8]byte{0: 1}
	_, _ = unix.Write(watcher.wake, one[:])
}

// watch is the watching goroutine, until another generation takes over.
func watch(generation uint64) {
	askForShortSlices()
	var events [64]unix.EpollEvent
	for {
		n := wait(events[:], timeout())
		for i := range n {
			if !serve(uint64(uint32(events[i].Fd))|uint64(uint32(events[i].Pad))<<32, generation) {
				return // the other one is told of the rest
			}
		}
		wakeRested()
	}
}

// wait waits for events, for ever if timeout is negative.
func wait(events []unix.EpollEvent, timeout int) int {
	n, _, e := syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(watcher.epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), uintptr(timeout), 0, 0)
	if e != 0 { // EINTR
		return 0
	}
	return int(n)
}

// timeout returns how many milliseconds to wait, -1 for ever.
func timeout() int {
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	if len(watcher.resting) == 0 {
		return -1
	}
	first := watcher.resting[0].due()
	for _, w := range watcher.resting {
		if due := w.due(); due.Before(first) {
			first = due
		}
	}
	return max(0, int((time.Until(first)+time.Millisecond-1)/time.Millisecond))
}

// due is when w has rested enough.
func (w *Watch) due() time.Time { return w.window.Add(w.limit.Interval) }

// serve calls a watch's function. It reports false if another goroutine has taken over meanwhile.
func serve(id, generation uint64) bool {
	if id == 0 {
		var b [8]byte
		_, _ = unix.Read(watcher.wake, b[:])
		return true
	}
	watcher.mu.Lock()
	w := watcher.watches[id]
	if w == nil || w.suspended || w.resting {
		watcher.mu.Unlock()
		return true
	}
	now := time.Now()
	if over := now.Sub(w.window) / w.limit.Interval; over > 0 {
		w.window, w.served = now, max(0, w.served-int(over)*w.limit.Times)
	}
	if w.served >= w.limit.Times {
		// It comes back when the interval is over. DEL rather than no events: the end would be said all the time.
		_ = w.control(unix.EPOLL_CTL_DEL)
		w.rest(w.window)
		watcher.mu.Unlock()
		return true
	}
	w.served++
	watcher.guard.begin(w)
	watcher.mu.Unlock()
	w.ready()
	return watcher.guard.end(generation)
}

// wakeRested lets those go on that have rested.
func wakeRested() {
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	if len(watcher.resting) == 0 {
		return
	}
	now := time.Now()
	rested := watcher.resting
	watcher.resting = nil
	for _, w := range rested {
		switch {
		case now.Before(w.due()):
			watcher.resting = append(watcher.resting, w)
		default:
			w.resting = false
			if !w.removed && !w.suspended {
				w.add()
			}
		}
	}
}
