// Package command has fields of commands of a scope's.
package command

import (
	"os/exec"
	"syscall"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

func fields(t *token.Token) error {
	var later *exec.Cmd
	err := guise.RunAs(t, func(s *guise.Scope) error {
		c := s.Command("id")
		c.Dir = "/home"                        // want `^c\.Dir of a Scope\.Command is set: the directory is entered as the server, and a client whose file system it is can hang the server; use Scope\.CommandIn$`
		c.SysProcAttr.Credential = nil         // want `c\.SysProcAttr\.Credential of a Scope\.Command is set`
		c.SysProcAttr.Credential.Uid = 1       // want `c\.SysProcAttr\.Credential\.Uid of a Scope\.Command is set`
		c.SysProcAttr.AmbientCaps = nil        // want `AmbientCaps of a Scope\.Command is set`
		c.SysProcAttr = &syscall.SysProcAttr{} // want `c\.SysProcAttr of a Scope\.Command is set`
		c.Path = "/bin/id"                     // want `c\.Path of a Scope\.Command is set`
		c.Args = append(c.Args, "-u")          // want `c\.Args of a Scope\.Command is set`
		c.Env = guise.ClientEnviron([]string{"A=B"})
		c.ExtraFiles = nil
		c.SysProcAttr.Pdeathsig = syscall.SIGKILL
		later = s.CommandIn("/", "id")
		return nil
	})
	later.Dir = "/home" // want `later\.Dir of a Scope\.Command is set`
	return err
}

func ofOthers(t *token.Token, s *guise.Scope, unknown *exec.Cmd) {
	c := exec.Command("id") // want `exec\.Command in a scope`
	c.Dir = "/"
	unknown.Dir = "/"
	either := s.Command("id")
	if unknown.Dir == "" {
		either = unknown
	}
	either.Dir = "/"
}
