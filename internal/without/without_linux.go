// Package without makes a process do without what its kernel has, for tests of fallbacks and of failing calls. The kernel does it, by
// a seccomp(2) filter: what runs is the real program, and what fails is the real call.
package without

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SocketOptions makes getsockopt(2) and setsockopt(2) fail with ENOPROTOOPT for the given options of level SOL_SOCKET, in all
// threads of this process and for good, as on a kernel that does not have them.
func SocketOptions(options ...int) error {
	return SocketOptionsFail(unix.ENOPROTOOPT, options...)
}

// SocketOptionsFail is SocketOptions with another error.
func SocketOptionsFail(errno syscall.Errno, options ...int) error {
	const (
		offsetLevel  = offsetArguments + 1*8
		offsetOption = offsetArguments + 2*8
	)
	program := []unix.SockFilter{
		load(offsetCall),
		equal(unix.SYS_GETSOCKOPT, 2, 0),
		equal(unix.SYS_SETSOCKOPT, 1, 0),
		end(unix.SECCOMP_RET_ALLOW),
		load(offsetLevel),
		equal(unix.SOL_SOCKET, 1, 0),
		end(unix.SECCOMP_RET_ALLOW),
		load(offsetOption),
	}
	for _, option := range options {
		program = append(program, equal(uint32(option), 0, 1), end(unix.SECCOMP_RET_ERRNO|uint32(errno)))
	}
	return install(unix.SECCOMP_FILTER_FLAG_TSYNC, append(program, end(unix.SECCOMP_RET_ALLOW)))
}

// Call makes a system call fail with errno in the calling thread and those that it starts, for good. The goroutine has to be
// locked to the thread.
func Call(call uintptr, errno syscall.Errno) error {
	return install(0, []unix.SockFilter{
		load(offsetCall),
		equal(uint32(call), 0, 1),
		end(unix.SECCOMP_RET_ERRNO | uint32(errno)),
		end(unix.SECCOMP_RET_ALLOW),
	})
}

// Offsets in struct seccomp_data.
const (
	offsetCall      = 0
	offsetArguments = 16
)

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func equal(k uint32, then, otherwise uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: then, Jf: otherwise, K: k}
}

func end(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

func install(flags uintptr, program []unix.SockFilter) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_NO_NEW_PRIVS): %w", err)
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: unsafe.SliceData(program)}
	r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&filter)))
	if e != 0 {
		return fmt.Errorf("seccomp(2): %w", e)
	}
	if r != 0 {
		return fmt.Errorf("seccomp(2): thread %d can't have the filter", r)
	}
	return nil
}
