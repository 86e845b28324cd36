package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// watchedPipe is a server of the test's own, with one client.
type watchedPipe struct {
	t        *testing.T
	listener *guise.Listener
	near     *guise.Conn // opened as alice, with dynamic tracking
	server   *guise.Conn
}

func newWatchedPipe(t *testing.T) *watchedPipe {
	t.Helper()
	needRoot(t)
	l, err := guise.Listen(filepath.Join(testdir.Open(t, 0o755), "pipe"), &guise.ListenConfig{Watch: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &watchedPipe{t: t, listener: l}
	p.as(alice, func() (err error) {
		p.near, err = guise.Dial(p.path(), &guise.QoS{Tracking: guise.Dynamic})
		return err
	})
	t.Cleanup(func() { p.near.Close() })
	if p.server, err = l.AcceptPipe(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.server.Close() })
	if err := p.server.WaitClient(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *watchedPipe) path() string { return p.listener.Addr().String() }

func (p *watchedPipe) as(uid uint32, f func() error) {
	p.t.Helper()
	who, err := token.FromIDs(uid, uid, nil)
	if err == nil {
		err = guise.RunAs(who, func(*guise.Scope) error { return f() })
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// become has the client speak for uid, and the server listen.
func (p *watchedPipe) become(uid uint32) {
	p.t.Helper()
	p.as(uid, func() error {
		_, err := p.near.Write([]byte("x"))
		return err
	})
	if _, err := p.server.Read(make([]byte, 1)); err != nil {
		p.t.Fatal(err)
	}
}

// scope has the server call f in a scope of the client.
func (p *watchedPipe) scope(f func()) {
	p.t.Helper()
	err := p.server.RunAsClient(func(*guise.Scope) error {
		f()
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// watcher is `guise watch` as it runs, with its standard output.
type watcherProcess struct {
	t       *testing.T
	command *exec.Cmd
	lines   *bufio.Scanner
	stderr  strings.Builder
}

func startWatcher(t *testing.T, args ...string) *watcherProcess {
	t.Helper()
	w := &watcherProcess{t: t, command: guiseProgram(t, append([]string{"watch"}, args...)...)}
	w.command.Stderr = &w.stderr
	out, err := w.command.StdoutPipe()
	if err == nil {
		err = w.command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	w.lines = bufio.NewScanner(out)
	w.lines.Buffer(nil, 1<<20)
	late := time.AfterFunc(patience, func() { w.command.Process.Kill() })
	t.Cleanup(func() {
		late.Stop()
		w.command.Process.Kill()
		w.command.Wait()
	})
	return w
}

// line returns the next line, which has to have all of parts in it.
func (w *watcherProcess) line(parts ...string) string {
	w.t.Helper()
	if !w.lines.Scan() {
		w.t.Fatalf("guise watch ends, want a line with %q; standard error:\n%s", parts, w.stderr.String())
	}
	if !hasAll(w.lines.Text(), parts) {
		w.t.Errorf("guise watch prints %q, want a line with %q", w.lines.Text(), parts)
	}
	return w.lines.Text()
}

// end waits until it has printed the rest and ended.
func (w *watcherProcess) end(status int, says string) {
	w.t.Helper()
	for w.lines.Scan() {
		w.t.Errorf("guise watch prints %q before it ends", w.lines.Text())
	}
	_ = w.command.Wait() // the state says it
	if w.command.ProcessState.ExitCode() != status || !strings.Contains(w.stderr.String(), says) {
		w.t.Errorf("guise watch ends with %v and says %q, want exit status %d and %q", w.command.ProcessState, w.stderr.String(), status, says)
	}
}

func TestWatchLines(t *testing.T) {
	p := newWatchedPipe(t)
	w := startWatcher(t, p.path())
	w.line("begun: ", p.path(), fmt.Sprintf("served by process %d of", os.Getpid()), "1 connection")
	w.line("#1 there: 61001 groups=61001, process", "level impersonation, dynamic tracking; 61001", "no scope in progress")
	p.become(bob)
	w.line("#1 changed: 61002 groups=61002, scope ")
	p.scope(func() { w.line("#1 entered: 1 scope in progress as 61002") })
	w.line("#1 left: no scope in progress")
	p.server.Close()
	w.line("#1 closed: 61001")
	p.listener.Close()
	w.line("ended: the server has stopped listening")
	w.end(0, "the server has stopped listening.")
}

func TestWatchJSON(t *testing.T) {
	p := newWatchedPipe(t)
	w := startWatcher(t, "--json", p.path())
	next := func() (e guise.WatchEvent) {
		if err := json.Unmarshal([]byte(w.line()), &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := next(); e.Kind != guise.WatchBegun || e.Version != 1 || e.Connections != 1 || e.Server.Path != p.path() {
		t.Errorf("it begins with %+v", e)
	}
	if e := next(); e.Kind != guise.WatchThere || e.Connection.Context.UID != alice || e.Connection.Tracking != guise.Dynamic {
		t.Errorf("there is %+v", e)
	}
	p.become(bob)
	if e := next(); e.Kind != guise.WatchChanged || e.Connection.Context.UID != bob || e.Connection.Client.UID != alice {
		t.Errorf("after a change there is %+v", e)
	}
	w.command.Process.Signal(syscall.SIGINT)
	w.end(0, "")
}

// TestWatchShowsTheChain has a server of one pipe be a client of the watched one, in a scope of its own client.
func TestWatchShowsTheChain(t *testing.T) {
	middle := newWatchedPipe(t)
	watched := newWatchedPipe(t)
	w := startWatcher(t, watched.path())
	w.line("begun")
	w.line("there")
	middle.scope(func() {
		near, err := guise.Dial(watched.path(), &guise.QoS{Tracking: guise.Dynamic})
		if err != nil {
			t.Error(err)
			return
		}
		defer near.Close()
		far, err := watched.listener.AcceptPipe()
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		if err := far.WaitClient(t.Context()); err != nil {
			t.Error(err)
		}
		w.line("#2 opened: 61001")
		w.line("#2 known: level impersonation, dynamic tracking; 61001", fmt.Sprintf("via %d root(0) %s", os.Getpid(), selfPath(t)), " > ")
	})
}

func selfPath(t *testing.T) string {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWatchSaysWhyNot(t *testing.T) {
	needRoot(t)
	s := serveOn(t, nil, "cat")
	unwatched := serveOn(t, []string{"--no-watch"}, "cat")
	for _, test := range []struct {
		uid    uint32
		args   []string
		status int
		says   string
	}{
		{0, nil, statusUsage, "NAME is missing"},
		{0, []string{"a", "b"}, statusUsage, "one pipe is watched at a time"},
		{0, []string{s.path + "-not"}, statusNoPipe, "there is no pipe of this name"},
		{0, []string{unwatched.path}, statusNoPipe, "does not let itself be watched"},
		{alice, []string{s.path}, statusRefused, "only root may watch it"},
	} {
		r := run(t, "", as(test.uid, guiseProgram(t, append([]string{"watch"}, test.args...)...)))
		if r.status != test.status || !strings.Contains(r.err, test.says) || r.out != "" {
			t.Errorf("guise watch %v as uid %d: exit status %d, %q, %q; want %d and %q", test.args, test.uid, r.status, r.out, r.err, test.status, test.says)
		}
	}
}

func TestWatchOfAServerThatDies(t *testing.T) {
	s := serveOn(t, nil, "cat")
	w := startWatcher(t, s.path)
	w.line("begun")
	s.command.Process.Kill()
	<-s.exited
	w.end(statusFailed, "the server has gone")
	r := run(t, "", guiseProgram(t, "watch", s.path))
	if r.status != statusNoPipe || !strings.Contains(r.err, "nobody listens") {
		t.Errorf("watching a server that has died: exit status %d, %s", r.status, r.err)
	}
}

func TestWatchOfServe(t *testing.T) {
	s := serveOn(t, nil, "cat")
	w := startWatcher(t, s.path)
	w.line("begun")
	run(t, "hello", guiseProgram(t, "call", "--tracking", "dynamic", s.path)).expect(t, "guise call", 0, "hello")
	for _, kind := range []string{"opened", "known", "frozen", "entered", "left", "closed"} {
		w.line("#1 " + kind + ": ")
	}
	s.stop()
	w.line("ended")
	w.end(0, "stopped listening")
}

func TestHandedOverSocketIsNotWatched(t *testing.T) {
	path, f := socketFor(t, "unix")
	s := start(t, path, handOver(t, f, "label", "--", "cat"))
	s.waitLog("nobody can watch this pipe")
	if r := run(t, "", guiseProgram(t, "watch", path)); r.status != statusNoPipe || !strings.Contains(r.err, "systemd") {
		t.Errorf("watching it: exit status %d, %s", r.status, r.err)
	}
}

// TestWatchedTextIsPrintable has a name that a terminal would obey.
func TestWatchedTextIsPrintable(t *testing.T) {
	e := &guise.WatchEvent{Kind: guise.WatchOpened, Connection: &guise.WatchedConnection{
		ID: 1, PID: 7, Program: "/tmp/\x1b[2J\a\nroot\u202egnp", Client: guise.WatchedContext{UID: alice, GID: alice},
	}}
	table := &watchTable{}
	table.take(&guise.WatchEvent{Kind: guise.WatchBegun, Server: &guise.WatchedServer{Pipe: "\x1b]0;title\a", Path: "/x"}})
	table.take(e)
	for _, s := range append(table.lines(200, 24), eventLine(e)) {
		if strings.ContainsAny(s, "\x1b\a\n\u202e") {
			t.Errorf("%q goes to the terminal", s)
		}
	}
	if s := eventLine(e); !strings.Contains(s, `/tmp/\x1b[2J\a\nroot\u202egnp`) {
		t.Errorf("the program is shown as %s", s)
	}
}

func TestWatchedJSONIsPrintable(t *testing.T) {
	want := "/tmp/\u009b2J\u202e\U000e0001\x1b\n\u00e4"
	e := &guise.WatchEvent{Kind: guise.WatchOpened, Connection: &guise.WatchedConnection{Program: want}}
	var out strings.Builder
	events := func(yield func(*guise.WatchEvent, error) bool) { yield(e, nil) }
	if err := watchJSON(events, &out); err != nil {
		t.Fatal(err)
	}
	var got guise.WatchEvent
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got.Connection.Program != want {
		t.Errorf("%s is %+v (%v)", out.String(), got.Connection, err)
	}
	if line := strings.TrimSuffix(out.String(), "\n"); strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%q goes to the terminal", line)
	}
}

func TestTableFitsItsTerminal(t *testing.T) {
	table := &watchTable{}
	table.take(&guise.WatchEvent{Kind: guise.WatchBegun, Server: &guise.WatchedServer{Pipe: "spool", Path: "/run/guise/pipe/spool"}})
	for id := range uint64(40) {
		table.take(&guise.WatchEvent{Kind: guise.WatchThere, Connection: &guise.WatchedConnection{
			ID: id + 1, PID: int(id), Level: guise.Impersonation, Tracking: guise.Dynamic, Scopes: 1,
			Context: &guise.WatchedContext{UID: alice, GID: alice, Groups: []uint32{aliceGroup}}, Source: 2,
			Via: []token.Hop{{PID: 9, UID: bob, Program: strings.Repeat("/long", 60)}, {PID: int(id), UID: ^uint32(0)}},
		}})
	}
	table.take(&guise.WatchEvent{Kind: guise.WatchChanged, Connection: &guise.WatchedConnection{ID: 3}})
	for _, size := range [][2]int{{200, 60}, {80, 24}, {40, 10}, {20, 5}, {1, 1}, {10, 0}, {80, 4}} {
		lines := table.lines(size[0], size[1])
		if len(lines) > size[1] {
			t.Errorf("%d lines are shown on a terminal of %v", len(lines), size)
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > size[0] {
				t.Errorf("a line of %d is shown on a terminal of %v: %q", utf8.RuneCountInString(line), size, line)
			}
		}
	}
	shown := strings.Join(table.lines(200, 20), "\n")
	for _, want := range []string{"40 connections, 39 scopes in progress", "\n3  ", "\n40  ", "… and ", "#3 changed", "9 61002 /long"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the table has no %q:\n%s", want, shown)
		}
	}
	table.take(&guise.WatchEvent{Kind: guise.WatchMissed, Missed: 7})
	if shown := strings.Join(table.lines(200, 20), "\n"); !strings.Contains(shown, "0 connections, no scope in progress, 7 events missed") {
		t.Errorf("after a gap the table is\n%s", shown)
	}
}

// readAll reads what the terminal shows from now on, on a goroutine of its own, and hands on what there is each time.
func readAll(r io.Reader) <-chan string {
	all := make(chan string)
	go func() {
		defer close(all)
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Read(buf)
			if err != nil {
				return
			}
			all <- string(buf[:n])
			runtime.Gosched()
		}
	}()
	return all
}
