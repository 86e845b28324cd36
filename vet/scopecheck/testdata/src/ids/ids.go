// Package ids has what changes ids.
package ids

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

const setgroups = syscall.SYS_SETGROUPS // by another name

func inAScope(t *token.Token, number int) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		_ = syscall.Setuid(1)                                            // want `^syscall\.Setuid in a scope: it changes every thread of the process, those in other scopes too; guise may end the process for it; never call it while there are scopes; RunAs wears another token$`
		_ = syscall.Setgid(1)                                            // want `syscall\.Setgid in a scope`
		_ = syscall.Setgroups(nil)                                       // want `syscall\.Setgroups in a scope`
		_ = syscall.Setreuid(1, 1)                                       // want `syscall\.Setreuid in a scope`
		_ = syscall.Setregid(1, 1)                                       // want `syscall\.Setregid in a scope`
		_ = syscall.Setresuid(1, 1, 1)                                   // want `syscall\.Setresuid in a scope`
		_ = syscall.Setresgid(1, 1, 1)                                   // want `syscall\.Setresgid in a scope`
		_ = syscall.Seteuid(1)                                           // want `syscall\.Seteuid in a scope`
		_ = syscall.Setfsuid(1)                                          // want `syscall\.Setfsuid in a scope`
		_ = unix.Setresuid(1, 1, 1)                                      // want `unix\.Setresuid in a scope`
		_ = unix.Setfsuid(1)                                             // want `unix\.Setfsuid in a scope: it changes behind guise's back what the thread wears`
		_, _ = unix.SetfsgidRetGid(1)                                    // want `unix\.SetfsgidRetGid in a scope`
		_ = unix.Capset(nil, nil)                                        // want `unix\.Capset in a scope`
		_, _, _ = syscall.RawSyscall(unix.SYS_SETRESUID, 1, 1, 1)        // want `syscall\.RawSyscall in a scope: it changes behind`
		_, _, _ = unix.Syscall(uintptr(unix.SYS_SETFSUID), 1, 0, 0)      // want `unix\.Syscall in a scope`
		_, _, _ = syscall.AllThreadsSyscall(syscall.SYS_SETGID, 1, 0, 0) // want `syscall\.AllThreadsSyscall in a scope: it changes every thread`
		_, _, _ = unix.RawSyscall(setgroups, 0, 0, 0)                    // want `unix\.RawSyscall in a scope`
		_, _ = unix.RawSyscallNoError(unix.SYS_SETFSGID, 1, 0, 0)        // want `unix\.RawSyscallNoError in a scope`
		_, _, _ = syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
		_, _, _ = syscall.RawSyscall(uintptr(number), 0, 0, 0)
		_, _ = os.Geteuid(), unix.Getuid()
		return nil
	})
}

func outside() error { return syscall.Setuid(1) }
