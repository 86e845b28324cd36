// Package launch starts programs.
package launch

import "syscall"

// Prepare takes what starting takes.
func Prepare() error { return nil }

// Start starts a program, whose descriptors 0, 1, … are copies of files.
func Start(path string, argv, env []string, files []int, sys *syscall.SysProcAttr) (int, error) {
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fds[i] = uintptr(f)
	}
	return syscall.ForkExec(path, argv, &syscall.ProcAttr{Env: env, Files: fds, Sys: sys})
}
