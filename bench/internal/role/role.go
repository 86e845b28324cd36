// Package role runs this executable again in another role: as a client under other ids, a server of its own, a process whose
// memory is measured.
package role

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Role is the main function of a process in a role. It ends when its standard input does, so that none outlives who started it.
type Role func(args []string) error

const marker = "--role"

// Play runs this process's role and does not return, or returns at once if it was started for none.
func Play(roles map[string]Role) {
	if len(os.Args) < 3 || os.Args[1] != marker {
		return
	}
	if err := roles[os.Args[2]](os.Args[3:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[2], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Main plays this process's role, or else runs what the program is for, which takes root.
func Main(roles map[string]Role, run func() error) {
	Play(roles)
	if os.Geteuid() != 0 {
		Fatal(errors.New("this takes root: it measures servers that act as others"))
	}
	if err := run(); err != nil {
		Fatal(err)
	}
}

// Fatal says why nothing can be measured, and ends the process.
func Fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// AwaitEnd returns when whoever started this process lets it end.
func AwaitEnd() { io.Copy(io.Discard, os.Stdin) }

// Process is a running role.
type Process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Reader
	ended atomic.Bool
}

// Start starts this executable in a role; attr may be nil. The environment is this process's and env.
func Start(attr *syscall.SysProcAttr, env []string, name string, args ...string) (*Process, error) {
	here := func(args ...string) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", args...)
		cmd.SysProcAttr = attr
		cmd.Env = os.Environ()
		cmd.Dir = "/"
		return cmd
	}
	return StartBy(here, env, name, args...)
}

// StartBy starts a role by a command that somebody else makes of its arguments. The environment is the command's and env. If the
// command is one that starts this executable elsewhere, PID and Signal are about that command.
func StartBy(command func(args ...string) *exec.Cmd, env []string, name string, args ...string) (*Process, error) {
	cmd := command(append([]string{marker, name}, args...)...)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the %s: %w", name, err)
	}
	return &Process{cmd: cmd, stdin: stdin, lines: bufio.NewReader(stdout)}, nil
}

// Line waits for the next line that the process prints.
func (p *Process) Line() (string, error) {
	line, err := p.lines.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("a process ended before its time: %w", err)
	}
	return strings.TrimSuffix(line, "\n"), nil
}

// Write writes to the process's standard input.
func (p *Process) Write(b []byte) (int, error) { return p.stdin.Write(b) }

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends the process a signal.
func (p *Process) Signal(signal os.Signal) error { return p.cmd.Process.Signal(signal) }

// Ended reports whether the process has ended, before Stop or by it.
func (p *Process) Ended() bool {
	if p.ended.Load() {
		return true
	}
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, p.PID(), &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err != nil || info.Signo != 0
}

// Stop ends the process and waits for it.
func (p *Process) Stop() error {
	p.stdin.Close()
	err := p.cmd.Wait()
	p.ended.Store(true)
	return err
}
