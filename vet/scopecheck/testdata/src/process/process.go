// Package process has what changes the whole process.
package process

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

func inAScope(t *token.Token, d *os.File) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		_ = os.Chdir("/")          // want `^os\.Chdir in a scope: it changes the whole process, which is the server; use absolute paths, or openat in a directory that was opened here$`
		_ = d.Chdir()              // want `os\.File\.Chdir in a scope`
		_ = syscall.Fchdir(0)      // want `syscall\.Fchdir in a scope`
		_ = unix.Chroot("/")       // want `unix\.Chroot in a scope`
		_ = syscall.Umask(022)     // want `syscall\.Umask in a scope: it changes the whole process, which is the server; give the mode in full, and fchmod`
		_ = unix.Umask(022)        // want `unix\.Umask in a scope`
		return os.Setenv("A", "B") // nobody takes it for the client's
	})
}

func outside() error { return os.Chdir("/") }
