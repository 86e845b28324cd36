// Package deeper is one further away.
package deeper

import "os/exec"

func Run(name string) error { return exec.Command(name).Run() } // want Run:`in a scope: \[program\]`
