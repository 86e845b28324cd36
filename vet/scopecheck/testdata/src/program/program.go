// Package program has programs that are started.
package program

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

func plain(t *token.Token) error {
	before := exec.Command("true")
	return guise.RunAs(t, func(*guise.Scope) error {
		_ = exec.Command("true").Run()    // want `^exec\.Command in a scope: the program's real uid is the server's, and it can become the server again; shells do so unasked; use Scope\.Command or Scope\.CommandIn$`
		c := exec.Command("true")         // want `exec\.Command in a scope`
		if err := c.Start(); err != nil { // it is enough to say it once
			return err
		}
		_ = before.Start()                   // want `exec\.Cmd\.Start in a scope`
		made := &exec.Cmd{Path: "/bin/true"} // want `an exec\.Cmd in a scope`
		_ = made.Run()
		_, _ = os.StartProcess("", nil, nil)         // want `os\.StartProcess in a scope`
		_, _ = syscall.ForkExec("", nil, nil)        // want `syscall\.ForkExec in a scope`
		_, _, _ = syscall.StartProcess("", nil, nil) // want `syscall\.StartProcess in a scope`
		_ = unix.Exec("", nil, nil)                  // want `unix\.Exec in a scope`
		return syscall.Exec("", nil, nil)            // want `syscall\.Exec in a scope`
	})
}

func ofTheScope(t *token.Token) error {
	var later *exec.Cmd
	err := guise.RunAs(t, func(s *guise.Scope) error {
		later = s.Command("id")
		c := s.CommandIn("/", "id")
		c.Stdout = os.Stdout
		_ = s.Command("id").Run()
		return c.Run()
	})
	if err == nil {
		err = later.Start()
	}
	_ = exec.Command("true").Run()
	return err
}

func ofWhichNothingIsKnown(c *exec.Cmd) func(*guise.Scope) error {
	return func(*guise.Scope) error { return c.Run() }
}

func lookingUpIsRight(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		_, err := exec.LookPath("id")
		return err
	})
}
