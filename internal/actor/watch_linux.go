package actor

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// now returns the time by a clock that all processes of a machine share, in nanoseconds.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("the machine has no clock: " + err.Error())
	}
	return t.Nano()
}

// watch sleeps until the calling thread has another effective uid, without calling into the library, and returns when it saw
// that; 0 if its patience came to an end before.
//
// Somebody else changes the thread by a signal, which ends the sleep. One that comes before the thread is asleep does not, so the
// sleep is short.
func watch(uid uint32, patience time.Duration) int64 {
	const nap = int64(time.Millisecond)
	for end := now() + int64(patience); ; {
		is, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
		at := now()
		if uint32(is) == uid {
			return at
		}
		if at >= end {
			return 0
		}
		sleep := unix.NsecToTimespec(min(nap, end-at))
		_, _ = unix.Ppoll(nil, &sleep, nil) // EINTR is what it waits for
	}
}
