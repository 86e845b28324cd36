package main

import (
	"bufio"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/guise-project/guise/internal/testdir"
)

// serving is a server that runs.
type serving struct {
	t       *testing.T
	command *exec.Cmd
	path    string
	exited  chan struct{}

	mu   sync.Mutex
	more *sync.Cond
	log  []string
	end  bool
}

// serveOn starts `guise serve FLAGS PATH -- COMMAND` on a path of the test's own and waits until it listens.
func serveOn(t *testing.T, flags []string, command ...string) *serving {
	t.Helper()
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	args := append([]string{"serve"}, flags...)
	args = append(append(args, path, "--"), command...)
	return start(t, path, guiseProgram(t, args...))
}

// start starts a server and waits until it listens.
func start(t *testing.T, path string, command *exec.Cmd) *serving {
	t.Helper()
	s := startOnly(t, path, command)
	s.waitLog("msg=listening")
	return s
}

// startOnly starts a server, which may not listen yet.
func startOnly(t *testing.T, path string, command *exec.Cmd) *serving {
	t.Helper()
	s := &serving{t: t, command: command, path: path, exited: make(chan struct{})}
	s.more = sync.NewCond(&s.mu)
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatalf("starting the server: %v", err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		s.readLog(stderr)
	}()
	go func() {
		defer close(s.exited)
		<-read
		_ = command.Wait() // the state says it
	}()
	t.Cleanup(func() {
		select {
		case <-s.exited:
		default:
			s.stop()
		}
	})
	return s
}

func (s *serving) readLog(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		s.mu.Lock()
		s.log = append(s.log, lines.Text())
		s.more.Broadcast()
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = true
	s.more.Broadcast()
}

// waitLog waits for a line with all of parts in it and returns it.
func (s *serving) waitLog(parts ...string) string {
	s.t.Helper()
	return s.waitLogs(1, parts...)
}

// waitLogs waits for n lines with all of parts in them and returns the last.
func (s *serving) waitLogs(n int, parts ...string) string {
	s.t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.more.Broadcast()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		found := 0
		for _, line := range s.log {
			if hasAll(line, parts) {
				found++
			}
			if found == n {
				return line
			}
		}
		if s.end || late {
			s.t.Fatalf("the server's log has %d lines with all of %q, want %d:\n%s", found, parts, n, strings.Join(s.log, "\n"))
		}
		s.more.Wait()
	}
}

func hasAll(line string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(line, part) {
			return false
		}
	}
	return true
}

// stop sends SIGTERM, and fails the test unless the server ends cleanly. Commands that were not ended would keep its log open.
func (s *serving) stop() {
	s.t.Helper()
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Errorf("sending SIGTERM to the server: %v", err)
	}
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.command.Process.Kill()
		s.t.Errorf("the server, or a command of it, did not end %v after SIGTERM", patience)
		return
	}
	if status := s.command.ProcessState; status.ExitCode() != 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.t.Errorf("the server ended with %v after SIGTERM, want exit status 0; its log:\n%s", status, strings.Join(s.log, "\n"))
	}
}

// hasLog reports whether there is a line with all of parts in it by now.
func (s *serving) hasLog(parts ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.log, func(line string) bool { return hasAll(line, parts) })
}

// say sends a plain client's words.
func say(t *testing.T, conn net.Conn, words string) {
	t.Helper()
	if _, err := io.WriteString(conn, words); err != nil {
		t.Fatalf("writing to the server: %v", err)
	}
}

// eventually waits until it is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// dial connects as a plain client of this process's.
func (s *serving) dial() *net.UnixConn {
	s.t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		s.t.Fatalf("connecting to the server: %v", err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}
