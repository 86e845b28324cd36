//go:build amd64 || arm64

package thread

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FollowSignal is the signal.
const FollowSignal = followSignal

// Records returns how many records of w are not known to be done.
func (w *Worn) Records() int {
	w.follower.mu.Lock()
	defer w.follower.mu.Unlock()
	return len(w.follower.published)
}

// Slot returns the number that w's signals carry.
func (w *Worn) Slot() uint32 { return w.follower.index }

// TakeSignal has the signal handled otherwise, as other code of the program may.
func TakeSignal(handler uintptr) syscall.Errno {
	act := kernelAction{handler: handler}
	_, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(followSignal), uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0)
	return e
}

// Queue sends the signal to a thread, tid, or to whichever thread the kernel takes, 0, of any process.
func Queue(pid, tid int, value uint64) syscall.Errno {
	info := queuedSignal{signo: int32(followSignal), code: codeQueue, pid: int32(pid), value: value}
	if tid == 0 {
		_, _, e := syscall.RawSyscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(followSignal), uintptr(unsafe.Pointer(&info)))
		return e
	}
	_, _, e := syscall.RawSyscall6(unix.SYS_RT_TGSIGQUEUEINFO, uintptr(pid), uintptr(tid), uintptr(followSignal), uintptr(unsafe.Pointer(&info)), 0, 0)
	return e
}

// TakePending takes a pending signal away from the calling thread, which must block it, and returns its value.
func TakePending() (value uint64, ok bool) {
	set := uint64(1) << (followSignal - 1)
	var info queuedSignal
	var timeout unix.Timespec
	n, _, _ := syscall.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&timeout)), unsafe.Sizeof(set), 0, 0)
	return info.value, n == uintptr(followSignal)
}

// Block blocks or lets through the signal on the calling thread.
func Block(block bool) {
	set := uint64(1) << (followSignal - 1)
	how := uintptr(unix.SIG_UNBLOCK)
	if block {
		how = unix.SIG_BLOCK
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, how, uintptr(unsafe.Pointer(&set)), 0, unsafe.Sizeof(set), 0, 0)
}

// Where in a record, which begins on a page, the first and the last capset find what they set.
const (
	RaisedOffset = uint32(unsafe.Offsetof(record{}.raised))
	ScopeOffset  = uint32(unsafe.Offsetof(record{}.scope))
)

// SomeFunction is the address of code that is not the handler.
func SomeFunction() uintptr { return restorerAddress() }
