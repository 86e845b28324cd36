//go:build amd64 || arm64

package thread

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// followSignal changes the credentials of a thread that runs other code. The Go runtime leaves it alone and never blocks it.
const followSignal = syscall.Signal(34)

// handler is what the kernel calls on followSignal, and restorer where it returns to. Neither can be called from Go.
//
//lint:ignore U1000 the kernel calls it
func handler()

//lint:ignore U1000 the kernel returns to it
func restorer()

func handlerAddress() uintptr
func restorerAddress() uintptr

// kernelAction is sigaction(2)'s structure as the kernel has it.
type kernelAction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// Flags of sigaction(2).
const (
	actSiginfo  = 0x00000004 // without it the handler is not told the value
	actOnStack  = 0x08000000 // the goroutine's own stack may be too small
	actRestart  = 0x10000000
	actRestorer = 0x04000000
)

func installHandler() error {
	now, err := currentAction()
	switch {
	case err != nil:
		return err
	case now.handler != 0: // SIG_DFL
		return errors.New("signal 34 is taken by other code of this program")
	case loadsMusl():
		return errors.New("this program runs on musl, whose setuid(3) and the like take signal 34")
	}
	if err := mapSlots(); err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	copy(handlerFailed[:], handlerFailedText)
	handlerPID = int32(os.Getpid())
	act := kernelAction{handler: handlerAddress(), restorer: restorerAddress(), flags: actSiginfo | actOnStack | actRestart | actRestorer, mask: ^uint64(0)}
	if _, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(followSignal), uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0); e != 0 {
		return failed("rt_sigaction", e)
	}
	return nil
}

func currentAction() (kernelAction, error) {
	var act kernelAction
	if _, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(followSignal), 0, uintptr(unsafe.Pointer(&act)), unsafe.Sizeof(act.mask), 0, 0); e != 0 {
		return act, failed("rt_sigaction", e)
	}
	return act, nil
}

// handlerInPlace returns an error if other code has taken the signal since.
func handlerInPlace() error {
	act, err := currentAction()
	if err == nil && act.handler != handlerAddress() {
		err = fmt.Errorf("%w: other code of this program has taken signal 34", ErrCannotFollow)
	}
	return err
}

// tryHandler sends the signal to a thread of its own: a seccomp filter, or a limit on queued signals, may be in the way.
func tryHandler() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := threadID()
	index, err := takeSlot(tid)
	if err != nil {
		return err
	}
	defer releaseSlot(index)
	if e := signalThread(tid, index); e != 0 {
		return failed("rt_tgsigqueueinfo", e)
	}
	if atomic.LoadInt32(&slotAt(index).heard) == 0 {
		return errors.New("signal 34 was sent and did not arrive")
	}
	return nil
}

// queuedSignal is siginfo_t of a signal that carries a value.
type queuedSignal struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	value                 uint64
	_                     [128 - 32]byte
}

const codeQueue = -1 // SI_QUEUE

// signalThread has the handler look at a slot on a thread. It fails with EAGAIN if too many signals are queued for this user
// (RLIMIT_SIGPENDING).
func signalThread(tid int32, index uint32) syscall.Errno {
	info := queuedSignal{signo: int32(followSignal), code: codeQueue, pid: handlerPID, value: uint64(index)}
	_, _, e := syscall.RawSyscall6(unix.SYS_RT_TGSIGQUEUEINFO, uintptr(handlerPID), uintptr(tid), uintptr(followSignal), uintptr(unsafe.Pointer(&info)), 0, 0)
	return e
}
