package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what has to come.
const patience = 30 * time.Second

// Clients in the tests. There are no accounts with these ids.
const (
	alice      = 61001
	bob        = 61002
	aliceGroup = 61005 // a supplementary group of alice's
	service    = 61010
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it starts clients under several uids")
	}
}

// needProgram returns the path of a program on this machine, the first of the candidates that is there, or skips the test.
func needProgram(t *testing.T, candidates ...string) string {
	t.Helper()
	for _, path := range candidates {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skipf("none of %v is installed", candidates)
	return ""
}

// as has a command run under uid and the same gid.
func as(uid uint32, command *exec.Cmd) *exec.Cmd {
	groups := []uint32{}
	if uid == alice {
		groups = append(groups, aliceGroup)
	}
	if uint32(os.Getuid()) != uid {
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
	}
	command.Dir = "/"
	return command
}

// guiseProgram returns the program as a command.
func guiseProgram(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	command := exec.Command(program(t), args...)
	// No test has business among this machine's own pipes. The race detector's runtime would sleep for a second at each exit.
	command.Env = append(os.Environ(), asProgram+"=1", "GUISE_DIR=/nonexistent", "GORACE=atexit_sleep_ms=0")
	return command
}

// result is how a process ended.
type result struct {
	status   int
	out, err string
}

// run runs a command to its end. It is killed, and the test fails, if that takes too long.
func run(t *testing.T, input string, command *exec.Cmd) result {
	t.Helper()
	command.Stdin = strings.NewReader(input)
	var out, stderr bytes.Buffer
	command.Stdout, command.Stderr = &out, &stderr
	if err := command.Start(); err != nil {
		t.Fatalf("starting %v: %v", command.Args, err)
	}
	late := time.AfterFunc(patience, func() { command.Process.Kill() })
	defer late.Stop()
	_ = command.Wait() // the state says it
	if !command.ProcessState.Exited() {
		t.Fatalf("%v did not end by itself (%v); it wrote %q and %q", command.Args, command.ProcessState, out.String(), stderr.String())
	}
	return result{command.ProcessState.ExitCode(), out.String(), stderr.String()}
}

// expect fails the test if a process did not end as it should have.
func (r result) expect(t *testing.T, what string, status int, out string) {
	t.Helper()
	if r.status != status || r.out != out {
		t.Fatalf("%s: exit status %d and output %q, want %d and %q; standard error:\n%s", what, r.status, r.out, status, out, r.err)
	}
}

// watch returns a function that fails the test unless process pid has ended soon after the call.
func watch(t *testing.T, pid int) (mustEnd func(what string)) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("process %d should be running: %v", pid, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func(what string) {
		t.Helper()
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, int(patience.Milliseconds())); n != 1 {
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			t.Errorf("%s (process %d) still runs: %v", what, pid, err)
		}
	}
}

// readFor reads from r until f says that it is enough.
func readFor(t *testing.T, r io.Reader, enough func(string) bool) string {
	t.Helper()
	var got []byte
	buf := make([]byte, 4096)
	for !enough(string(got)) {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			t.Fatalf("reading, after %q: %v", got, err)
		}
	}
	return string(got)
}

func hasLine(s string) bool { return strings.HasSuffix(s, "\n") }
