// Package seccomptest makes system calls fail for tests, by a filter in the kernel: what runs is the real program, and what
// fails is the real call.
package seccomptest

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Deny makes a system call fail with errno on the calling thread, and on those that it starts, for good. The goroutine has to
// be locked to the thread.
func Deny(call uint32, errno unix.Errno) error {
	return install(0, []unix.SockFilter{
		load(offsetNumber),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		result(seccompErrno | uint32(errno)),
		result(seccompAllow),
	})
}

// DenyOption makes getsockopt(2) at level SOL_SOCKET fail with errno for one option, on all threads of the process, for good:
// as if the kernel did not have it.
func DenyOption(option uint32, errno unix.Errno) error {
	return install(unix.SECCOMP_FILTER_FLAG_TSYNC, []unix.SockFilter{
		load(offsetNumber),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_GETSOCKOPT, Jf: 3},
		load(offsetArgument2),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: option, Jf: 1},
		result(seccompErrno | uint32(errno)),
		result(seccompAllow),
	})
}

const (
	offsetNumber    = 0           // of seccomp_data's nr
	offsetArgument2 = 16 + 2*8    // of its args[2], the low half
	seccompErrno    = 0x0005_0000 // SECCOMP_RET_ERRNO
	seccompAllow    = 0x7fff_0000 // SECCOMP_RET_ALLOW
)

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func result(value uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
}

func install(flags uintptr, filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_NO_NEW_PRIVS): %w", err)
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if e != 0 {
		return fmt.Errorf("seccomp: %w", e)
	}
	return nil
}
