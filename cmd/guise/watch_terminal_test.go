package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with `guise watch` in it.
type terminal struct {
	t        *testing.T
	near     *os.File // what a person would sit at
	far      *os.File // what the program has
	was      unix.Termios
	watcher  *watcherProcess
	all      <-chan string
	shown    string // everything so far
	deadline <-chan time.Time
}

// openPTY returns what a person would sit at, and what a program has of it.
func openPTY(t *testing.T) (near, far *os.File) {
	t.Helper()
	near, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal can be had: %v", err)
	}
	t.Cleanup(func() { near.Close() })
	if err := unix.IoctlSetPointerInt(int(near.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetUint32(int(near.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	far, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

// openTerminal starts `guise watch` in a terminal of its own.
func openTerminal(t *testing.T, width, height uint16, args ...string) *terminal {
	t.Helper()
	near, far := openPTY(t)
	x := &terminal{t: t, near: near, far: far, deadline: time.After(patience)}
	x.resize(width, height)
	x.was = x.mode()

	x.watcher = &watcherProcess{t: t, command: guiseProgram(t, append([]string{"watch"}, args...)...)}
	command := x.watcher.command
	command.Env = append(command.Env, "TERM=xterm")
	command.Stdin, command.Stdout, command.Stderr = far, far, &x.watcher.stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
	})
	x.all = readAll(near)
	return x
}

func (x *terminal) resize(width, height uint16) {
	x.t.Helper()
	if err := unix.IoctlSetWinsize(int(x.near.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) mode() unix.Termios {
	x.t.Helper()
	mode, err := unix.IoctlGetTermios(int(x.far.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	return *mode
}

func (x *terminal) press(keys string) {
	x.t.Helper()
	if _, err := x.near.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// screen returns what is on the screen: everything is drawn from the top.
func (x *terminal) screen() []string {
	drawings := strings.Split(x.shown, home)
	last := drawings[len(drawings)-1]
	complete, _, ok := strings.Cut(last, restBelow)
	if !ok {
		return nil
	}
	// The terminal puts a carriage return before each newline, as its mode says.
	return strings.Split(strings.NewReplacer(restOfLine, "", "\r", "").Replace(complete), "\n")
}

// wait waits until ok of what is on the screen.
func (x *terminal) wait(what string, ok func(lines []string) bool) []string {
	x.t.Helper()
	for {
		if lines := x.screen(); lines != nil && ok(lines) {
			return lines
		}
		select {
		case more, open := <-x.all:
			if !open {
				x.t.Fatalf("the terminal ends before it shows %s:\n%q", what, x.shown)
			}
			x.shown += more
		case <-x.deadline:
			x.t.Fatalf("the terminal does not show %s:\n%q\n%q", what, x.screen(), x.watcher.stderr.String())
		}
	}
}

func (x *terminal) waitText(text string) []string {
	x.t.Helper()
	return x.wait(text, func(lines []string) bool { return strings.Contains(strings.Join(lines, "\n"), text) })
}

// waitBytes waits until something was written.
func (x *terminal) waitBytes(b string) {
	x.t.Helper()
	for !strings.Contains(x.shown, b) {
		select {
		case more := <-x.all:
			x.shown += more
		case <-x.deadline:
			x.t.Fatalf("%q was not written to the terminal:\n%q", b, x.shown)
		}
	}
}

// ended waits until the program has ended and checks that the terminal is as it was.
func (x *terminal) ended(status int, says string) {
	x.t.Helper()
	x.waitBytes(leaveScreen)
	_ = x.watcher.command.Wait() // the state says it
	if state := x.watcher.command.ProcessState; state.ExitCode() != status || !strings.Contains(x.watcher.stderr.String(), says) {
		x.t.Errorf("guise watch ends with %v and says %q, want exit status %d and %q", state, x.watcher.stderr.String(), status, says)
	}
	if !strings.HasSuffix(x.shown, leaveScreen) || strings.Count(x.shown, "\x1b[?1049h") != strings.Count(x.shown, "\x1b[?1049l") {
		x.t.Errorf("the last that it writes is not what restores the screen: %q", x.shown[max(0, len(x.shown)-100):])
	}
	if now := x.mode(); now != x.was {
		x.t.Errorf("the terminal's mode is %+v afterwards, it was %+v", now, x.was)
	}
}

func TestWatchOnATerminal(t *testing.T) {
	p := newWatchedPipe(t)
	x := openTerminal(t, 150, 24, p.path())
	x.waitText("\n1   ")
	if mode := x.mode(); mode.Lflag&unix.ECHO != 0 {
		t.Error("what is typed is shown among the table")
	}
	lines := x.waitText(" 61001 ")
	for _, want := range []string{"guise watch: ", "1 connection, no scope in progress", "ACTS AS", "dynamic"} {
		if !strings.Contains(strings.Join(lines, "\n"), want) {
			t.Errorf("the table has no %q:\n%s", want, strings.Join(lines, "\n"))
		}
	}
	before := len(lines)
	p.become(bob)
	lines = x.waitText("#1 changed: 61002")
	if row := lines[4]; !strings.Contains(row, " 61002 ") || len(lines) != before+1 {
		t.Errorf("after a change the table is not redrawn in place:\n%s", strings.Join(lines, "\n"))
	}
	p.scope(func() { x.waitText("1 scope in progress") })
	x.waitText("no scope in progress")

	x.resize(40, 8)
	x.wait("a table of 40 by 8", func(lines []string) bool {
		for _, line := range lines {
			if utf8.RuneCountInString(line) > 40 {
				return false
			}
		}
		return len(lines) <= 8
	})

	// Suspended, it gives the terminal back, and takes it again when it goes on.
	x.press("\x1a")
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, x.watcher.command.Process.Pid, &info, unix.WSTOPPED, nil); err != nil {
		t.Fatal(err)
	}
	x.waitBytes(leaveScreen)
	if now := x.mode(); now != x.was {
		t.Errorf("suspended, the terminal's mode is %+v, it was %+v", now, x.was)
	}
	x.shown = ""
	x.watcher.command.Process.Signal(syscall.SIGCONT)
	x.waitText("guise watch: ")
	x.press("q")
	x.ended(0, "")
}

func TestWatchRestoresTheTerminal(t *testing.T) {
	for _, test := range []struct {
		name   string
		end    func(*terminal, *serving)
		status int
		says   string
	}{
		{"q", func(x *terminal, _ *serving) { x.press("q") }, 0, ""},
		{"Ctrl-C", func(x *terminal, _ *serving) { x.press("\x03") }, 0, ""},
		{"SIGTERM", func(x *terminal, _ *serving) { x.watcher.command.Process.Signal(syscall.SIGTERM) }, 0, ""},
		{"the server stops", func(_ *terminal, s *serving) { s.stop() }, 0, "the server has stopped listening."},
		{"the server dies", func(_ *terminal, s *serving) { s.command.Process.Kill(); <-s.exited }, statusFailed, "the server has gone"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serveOn(t, nil, "cat")
			x := openTerminal(t, 80, 24, s.path)
			x.waitText("0 connections")
			test.end(x, s)
			x.ended(test.status, test.says)
		})
	}
}

func TestWatchErrorOnATerminalNeedsNoScreen(t *testing.T) {
	x := openTerminal(t, 80, 24, "/nonexistent/pipe")
	_ = x.watcher.command.Wait() // the state says it
	if state := x.watcher.command.ProcessState; state.ExitCode() != statusNoPipe || !strings.Contains(x.watcher.stderr.String(), "no pipe") {
		t.Errorf("it ends with %v and says %q", state, x.watcher.stderr.String())
	}
	select {
	case shown := <-x.all:
		t.Errorf("it writes %q to the terminal", shown)
	default:
	}
}
