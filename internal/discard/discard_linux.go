// Package discard closes descriptors that strangers had a hand in. Closing one can block for as long as they like: a TCP
// socket that lingers, a file on a file system that they serve themselves, or a Unix socket with such things in its queue. So
// it never happens on the caller's time, and only a bounded number of threads ever wait.
package discard

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/unixsocket"
)

// atMost is how many threads may be blocked in close(2) at once.
const atMost = 16

var waiting struct {
	mu      sync.Mutex
	idle    sync.Cond
	queue   []func()
	closers int
}

func init() { waiting.idle.L = &waiting.mu }

// Descriptor takes over fd and closes it soon. It does not block.
func Descriptor(fd int) {
	if fd >= 0 {
		run(func() { unix.Close(fd) })
	}
}

// PairEnd takes over fd, which is one end of a socketpair(2), and closes it: at once if nothing is queued on it, and so nothing can
// block.
func PairEnd(fd int) {
	if fd < 0 {
		return
	}
	if unix.Shutdown(fd, unix.SHUT_RDWR) == nil && !unixsocket.Pending(fd) {
		unix.Close(fd)
		return
	}
	Descriptor(fd)
}

// Call calls closing soon, for things that are more than a descriptor. It does not block.
func Call(closing func()) { run(closing) }

func run(f func()) {
	waiting.mu.Lock()
	defer waiting.mu.Unlock()
	waiting.queue = append(waiting.queue, f)
	if waiting.closers < atMost {
		waiting.closers++
		go work()
	}
}

func work() {
	waiting.mu.Lock()
	defer waiting.mu.Unlock()
	for len(waiting.queue) > 0 {
		f := waiting.queue[0]
		waiting.queue[0] = nil
		waiting.queue = waiting.queue[1:]
		waiting.mu.Unlock()
		f()
		waiting.mu.Lock()
	}
	waiting.queue = nil
	waiting.closers--
	if waiting.closers == 0 {
		waiting.idle.Broadcast()
	}
}

// Wait blocks until everything that was handed over has been closed.
func Wait() {
	waiting.mu.Lock()
	defer waiting.mu.Unlock()
	for waiting.closers > 0 {
		waiting.idle.Wait()
	}
}
