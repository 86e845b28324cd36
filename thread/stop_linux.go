package thread

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// StopStatus is the exit status of a process that ended because a thread's own credentials could not be restored
// (EX_SOFTWARE of sysexits.h).
const StopStatus = 70

// Stop ends the process as it ends where a thread's own credentials can't be restored: for what must not go on either.
func Stop(why string) { stop(why) }

// stop ends the process without running any more of its code: no deferred function, no other goroutine, no exit hook.
func stop(why string) {
	message := []byte("guise: the process ends here: " + why + "\n")
	syscall.RawSyscall(unix.SYS_WRITE, 2, uintptr(unsafe.Pointer(unsafe.SliceData(message))), uintptr(len(message)))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, StopStatus, 0, 0)
	}
}
