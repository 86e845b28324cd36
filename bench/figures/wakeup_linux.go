package main

import (
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wakeups measures what everything here is measured in: from a futex(2) wake on the first CPU to the waiter running on the second.
type wakeups struct {
	word  atomic.Uint32 // rises with each
	begun chan int64    // when, for each that is asked for
	ask   chan struct{}
	woken chan int64
	stop  atomic.Bool
}

// Operations of futex(2).
const (
	futexWaitPrivate = 0 | 128
	futexWakePrivate = 1 | 128
)

// startWakeups starts the two threads, which end with [wakeups.end].
func startWakeups() (*wakeups, error) {
	w := &wakeups{begun: make(chan int64), ask: make(chan struct{}), woken: make(chan int64, 1)}
	ready := make(chan error)
	go func() {
		ready <- onCPU(0)
		for range w.ask {
			begun := now()
			w.word.Add(1)
			w.futex(futexWakePrivate, 1)
			w.begun <- begun
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	go func() {
		ready <- onCPU(1)
		for last := uint32(0); !w.stop.Load(); last++ {
			for w.word.Load() == last {
				w.futex(futexWaitPrivate, last)
			}
			w.woken <- now()
		}
	}()
	return w, <-ready
}

func (w *wakeups) futex(op int, value uint32) {
	syscall.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&w.word)), uintptr(op), uintptr(value), 0, 0, 0)
}

// wake returns how long one takes, in microseconds.
func (w *wakeups) wake() float64 {
	time.Sleep(between)
	w.ask <- struct{}{}
	begun := <-w.begun
	return float64(<-w.woken-begun) / 1e3
}

func (w *wakeups) end() {
	w.stop.Store(true)
	w.wake()
	close(w.ask)
}
