package readiness

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// slice is how long, in nanoseconds, the watching thread runs at a time before others that wait may: the shortest that there is. From Linux
// 6.12 on the scheduler lets threads with a short one run sooner when they wake up, and takes it back from what they get at a time
// (sched(7), sched_setattr(2)). So it takes no privilege, and nobody else's share.
const slice = 100_000

// askForShortSlices keeps the calling goroutine on its thread, which it makes one that is woken soon, if the kernel knows how.
func askForShortSlices() {
	runtime.LockOSThread() // for good: no other code may run with it, and what it starts must not inherit it
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return // whoever chose a policy knows why
	}
	attr.Runtime = slice
	_ = unix.SchedSetAttr(0, attr, 0) // older kernels refuse it, or take no notice
}
