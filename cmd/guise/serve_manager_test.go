package main

import (
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
)

// serviceManager is what listens on NOTIFY_SOCKET.
type serviceManager struct {
	t      *testing.T
	socket *net.UnixConn
	path   string
	told   []string
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	path := filepath.Join(testdir.Open(t, 0o755), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return &serviceManager{t: t, socket: socket, path: path}
}

// serve starts a server that tells this manager.
func (m *serviceManager) serve(environment []string, flags ...string) *serving {
	m.t.Helper()
	path := filepath.Join(testdir.Open(m.t, 0o755), "pipe")
	command := guiseProgram(m.t, append(append([]string{"serve"}, flags...), path, "--", "cat")...)
	command.Env = append(append(command.Env, "NOTIFY_SOCKET="+m.path), environment...)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return start(m.t, path, command)
}

// wait reads messages until there is one with all of parts in it, and returns that.
func (m *serviceManager) wait(parts ...string) string {
	m.t.Helper()
	m.socket.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	for {
		n, err := m.socket.Read(buf)
		if err != nil {
			m.t.Fatalf("the service manager was not told all of %q: %v; it was told %q", parts, err, m.told)
		}
		message := string(buf[:n])
		m.told = append(m.told, message)
		if hasAll(message, parts) {
			return message
		}
	}
}

func TestServeNotify(t *testing.T) {
	m := newServiceManager(t)
	s := m.serve(nil, "--max", "7")
	m.wait("READY=1", "STATUS=0 clients of at most 7")
	conn := s.dial() // clients can come by now
	say(t, conn, "x\n")
	readFor(t, conn, hasLine)
	m.wait("STATUS=1 client of at most 7")
	more := s.dial()
	say(t, more, "x\n")
	m.wait("STATUS=2 clients of at most 7")
	more.Close()
	m.wait("STATUS=1 client of at most 7")

	var before, after unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
	s.hangUp()
	message := m.wait("RELOADING=1")
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
	if at := number(t, message, "MONOTONIC_USEC="); at < before.Nano()/1000 || at > after.Nano()/1000 {
		t.Errorf("the reload began at %d by the monotonic clock, between %d and %d: %q", at, before.Nano()/1000, after.Nano()/1000, message)
	}
	m.wait("READY=1")
	s.stop()
	message = m.wait("STOPPING=1", "STATUS=ending, 1 client")
	// A --grace that is longer than the manager's patience counts.
	if usec := number(t, message, "EXTEND_TIMEOUT_USEC="); usec <= defaultGrace.Microseconds() {
		t.Errorf("with a grace period of %v the manager is asked for %d microseconds: %q", defaultGrace, usec, message)
	}
	if told := strings.Join(m.told, "\n"); strings.Contains(told, "WATCHDOG") {
		t.Errorf("a watchdog that there isn't was told: %q", told)
	}
}

// number returns what stands after a name in a message.
func number(t *testing.T, message, name string) int64 {
	t.Helper()
	for _, line := range strings.Split(message, "\n") {
		if text, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("there is no %s in %q", name, message)
	return 0
}

func TestServeWatchdog(t *testing.T) {
	m := newServiceManager(t)
	s := m.serve([]string{"WATCHDOG_USEC=100000"})
	conn := s.dial()
	say(t, conn, "x")
	for range 5 {
		m.wait("WATCHDOG=1")
	}
}

// Whoever manages another process has no watchdog for this one.
func TestServeWatchdogOfAnother(t *testing.T) {
	m := newServiceManager(t)
	s := m.serve([]string{"WATCHDOG_USEC=1000", "WATCHDOG_PID=1"})
	m.wait("READY=1")
	s.stop()
	m.wait("STOPPING=1")
	if told := strings.Join(m.told, "\n"); strings.Contains(told, "WATCHDOG") {
		t.Errorf("another process's watchdog was told: %q", told)
	}
}

func TestServeNotifyNobody(t *testing.T) {
	m := newServiceManager(t)
	m.socket.Close()
	s := m.serve(nil)
	s.waitLog("level=WARN", "the service manager was not told")
	run(t, "hello", guiseProgram(t, "call", s.path)).expect(t, "a call", 0, "hello")
}

// A manager that takes nothing in any more does not keep the server from its work, nor from ending.
func TestServeNotifyStuck(t *testing.T) {
	for _, c := range []struct {
		name        string
		environment []string
		before      bool // it is stuck when the server starts
	}{
		{"from the start", nil, true},
		{"later, with a watchdog", []string{"WATCHDOG_USEC=20000"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newServiceManager(t)
			if c.before {
				m.stick()
			}
			s := m.serve(c.environment)
			if !c.before {
				m.wait("READY=1")
				m.stick()
			}
			run(t, "hello", guiseProgram(t, "call", s.path)).expect(t, "a call", 0, "hello")
			s.hangUp()
			s.waitLog("msg=reloaded")
			s.stop()
		})
	}
}

// stick fills the manager's queue.
func (m *serviceManager) stick() {
	m.t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer unix.Close(fd)
	for err == nil {
		err = unix.Sendto(fd, []byte("X"), unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: m.path})
	}
	if err != unix.EAGAIN {
		m.t.Fatalf("filling the manager's queue: %v", err)
	}
}

// The command must not speak to the manager.
func TestServeNotifyNotByTheCommand(t *testing.T) {
	m := newServiceManager(t)
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	command := guiseProgram(t, "serve", path, "--", "env")
	command.Env = append(command.Env, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=60000000", "JOURNAL_STREAM=1:1")
	start(t, path, command)
	out := run(t, "", guiseProgram(t, "call", path)).out
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM"} {
		if strings.Contains(out, name) {
			t.Errorf("the command was told of the server's %s:\n%s", name, out)
		}
	}
}

// systemd's own tool hands a socket over and starts the server with the first client.
func TestServeSocketActivate(t *testing.T) {
	activate := needProgram(t, "/usr/bin/systemd-socket-activate", "/lib/systemd/systemd-socket-activate")
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	command := guiseProgram(t)
	command.Path = activate
	command.Args = []string{activate, "--listen=" + path, "-E", asProgram, "-E", "GORACE", "--fdname=pipe", program(t), "serve", "--mode", "0600", "label", "--", "cat"}
	s := startOnly(t, path, command)
	eventually(t, "systemd-socket-activate listens", func() bool {
		_, err := exec.Command("test", "-S", path).Output()
		return err == nil
	})
	run(t, "hello", guiseProgram(t, "call", path)).expect(t, "a call that starts the server", 0, "hello")
	s.waitLog("msg=listening", "pipe=label", "path="+path)
	s.waitLog("level=WARN", "SocketMode= and SocketGroup=")
	s.waitLog("client served", "status=0")
}
