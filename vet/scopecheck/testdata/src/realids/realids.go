// Package realids has calls that go by real ids.
package realids

import (
	"os"
	"os/user"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

func inAScope(t *token.Token, p *os.Process) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		_ = syscall.Kill(1, syscall.SIGTERM)                 // want `^syscall\.Kill in a scope: it may signal what the server's real uid may; use Scope\.Command\("kill", …\)$`
		_ = unix.Kill(1, unix.SIGTERM)                       // want `unix\.Kill in a scope`
		_ = unix.Tgkill(1, 1, unix.SIGTERM)                  // want `unix\.Tgkill in a scope`
		_ = unix.PidfdSendSignal(1, unix.SIGTERM, nil, 0)    // want `unix\.PidfdSendSignal in a scope`
		_ = p.Signal(os.Interrupt)                           // want `os\.Process\.Signal in a scope`
		_ = p.Kill()                                         // want `os\.Process\.Kill in a scope`
		_ = syscall.Access("/", 4)                           // want `^syscall\.Access in a scope: it answers for the real ids, which are the server's; use faccessat with AT_EACCESS, or just try$`
		_ = unix.Access("/", unix.R_OK)                      // want `unix\.Access in a scope`
		_ = unix.Faccessat(unix.AT_FDCWD, "/", unix.R_OK, 0) // want `unix\.Faccessat in a scope`
		_ = unix.Prlimit(1, unix.RLIMIT_CORE, nil, nil)      // want `unix\.Prlimit in a scope: it goes by the real ids`
		_ = syscall.PtraceAttach(1)                          // want `syscall\.PtraceAttach in a scope`
		_ = unix.PtraceSeize(1)                              // want `unix\.PtraceSeize in a scope`
		_, _ = user.Current()                                // want `^user\.Current in a scope: it answers for the real uid, which is the server's; use Scope\.Token$`
		_, _ = unix.ProcessVMReadv(1, nil, nil, 0)           // want `unix\.ProcessVMReadv in a scope`
		return nil
	})
}

func right(t *token.Token, flags int) error {
	_ = syscall.Kill(1, 0)
	return guise.RunAs(t, func(s *guise.Scope) error {
		_, _ = user.Lookup("nobody")
		c := s.Command("sleep", "1")
		_ = c.Process.Kill() // a child of one's own
		p := c.Process
		_ = p.Signal(os.Interrupt)
		_ = unix.Faccessat(unix.AT_FDCWD, "/", unix.R_OK, flags)
		return unix.Faccessat(unix.AT_FDCWD, "/", unix.R_OK, unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW)
	})
}
