// Package without makes a process do without facilities that its kernel has, for tests of the fallbacks.
package without

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SocketOptions makes getsockopt(2) and setsockopt(2) fail with ENOPROTOOPT for the given options of level SOL_SOCKET, in all
// threads of this process and for good, as on a kernel that does not have them. It is a seccomp filter.
func SocketOptions(options ...int) error {
	return install(unix.ENOPROTOOPT, options)
}

// SocketOptionsFail is SocketOptions with another error.
func SocketOptionsFail(errno syscall.Errno, options ...int) error { return install(errno, options) }

func install(errno syscall.Errno, options []int) error {
	const (
		offsetCall   = 0
		offsetLevel  = 16 + 8
		offsetOption = 16 + 16
	)
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	equal := func(k uint32, then, otherwise uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: then, Jf: otherwise, K: k}
	}
	end := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
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
	program = append(program, end(unix.SECCOMP_RET_ALLOW))

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_NO_NEW_PRIVS): %w", err)
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: unsafe.SliceData(program)}
	r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter)))
	if e != 0 {
		return fmt.Errorf("seccomp(2): %w", e)
	}
	if r != 0 {
		return fmt.Errorf("seccomp(2): thread %d can't have the filter", r)
	}
	return nil
}
