package procevents

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Available returns nil if this process hears of its events, and otherwise what was tried and what came of it. The error wraps
// [ErrSilent] if nothing came. The answer is kept.
func Available() error { return available() }

var available = sync.OnceValue(func() error {
	l, err := Listen()
	if err != nil {
		return err
	}
	defer l.Close()
	return l.Prove()
})

// Prove returns nil if the kernel sends events at this moment, and an error that wraps [ErrSilent] if it does not, which can
// come at any time. The listener's queue is left alone.
//
// The event that it looks for is that a thread gets the name it has: an id can't be changed without being another one
// meanwhile, and that it is set to what it is makes no event.
func (l *Listener) Prove() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// A socket in the group hears what anybody has subscribed to. One that subscribed itself would end the silence that it is
	// to find.
	s, err := join(names(uint32(os.Getpid()), uint32(unix.Gettid())))
	if err != nil {
		return err
	}
	defer s.close()
	if err := rename(); err != nil {
		return err
	}
	_, err = s.await(eventName)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: no event of a thread's renaming", ErrSilent)
	}
	if err != nil {
		return fmt.Errorf("waiting for the event of a thread's renaming: %w", err)
	}
	return nil
}

// rename gives the thread the name that it has.
func rename() error {
	var name [16]byte // TASK_COMM_LEN
	if _, _, e := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_NAME, uintptr(unsafe.Pointer(&name)), 0); e != 0 {
		return fmt.Errorf("prctl(PR_GET_NAME): %w", e)
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name)), 0); e != 0 {
		return fmt.Errorf("prctl(PR_SET_NAME): %w", e)
	}
	return nil
}
