package guise_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// patience is how long is waited for what comes at once.
const patience = 5 * time.Second

// attention is how long what must not change is looked at.
const attention = 30 * time.Millisecond

// until polls until ok, and fails the test with what was wrong if that takes too long.
func until(t testing.TB, what string, ok func() (got string, ok bool)) bool {
	t.Helper()
	for begun := time.Now(); ; runtime.Gosched() {
		got, done := ok()
		if done {
			return true
		}
		if time.Since(begun) > patience {
			t.Errorf("after %v, %s: it is %s", patience, what, got)
			return false
		}
	}
}

// inTime receives from c, or until it is closed.
func inTime[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Errorf("after %v, %s: it has not happened", patience, what)
	}
	return v
}

// shows is what threadIDs says of a thread that is t.
func shows(t *token.Token) string {
	var groups []string
	for _, g := range t.Groups() {
		groups = append(groups, strconv.FormatUint(uint64(g), 10))
	}
	return fmt.Sprint(t.UID(), " ", t.GID(), " ", strings.Join(groups, ","))
}

// becomes waits until the calling thread has the ids and groups of want.
func becomes(t testing.TB, when string, want *token.Token) bool {
	t.Helper()
	return until(t, when+" the thread has to become "+shows(want), func() (string, bool) {
		got := threadIDs()
		return got, got == shows(want)
	})
}

// stays looks for a while whether the calling thread remains what it is.
func stays(t testing.TB, when string, want *token.Token) bool {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < attention; runtime.Gosched() {
		if got := threadIDs(); got != shows(want) {
			t.Errorf("%s the thread is %s, and has to remain %s", when, got, shows(want))
			return false
		}
	}
	return true
}

// is compares the calling thread with want, at once.
func is(t testing.TB, when string, want *token.Token) {
	t.Helper()
	if got := threadIDs(); got != shows(want) {
		t.Errorf("%s the thread is %s, want %s", when, got, shows(want))
	}
}

// player is a locked thread of its own that changes its own ids.
type player struct {
	t      testing.TB
	orders chan func()
	ended  chan struct{}
}

func play(t testing.TB) *player {
	p := &player{t, make(chan func()), make(chan struct{})}
	go func() {
		defer close(p.ended)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		for f := range p.orders {
			f()
		}
	}()
	t.Cleanup(func() { close(p.orders); <-p.ended })
	return p
}

// do calls f on the player's thread.
func (p *player) do(f func()) {
	done := make(chan struct{})
	p.orders <- func() { defer close(done); f() }
	<-done
}

// become has the player change its effective ids and its groups by raw calls, of its thread alone.
func (p *player) become(to *token.Token) {
	p.t.Helper()
	var err error
	p.do(func() { err = rawBecome(to) })
	if err != nil {
		p.t.Errorf("a client that was to become %s: %v", to, err)
	}
}

func rawBecome(to *token.Token) error {
	const unchanged = ^uintptr(0)
	sets, e := capability.Get()
	if e != 0 {
		return e
	}
	sets.Effective = sets.Permitted
	if e := sets.Set(); e != 0 {
		return fmt.Errorf("capset: %w", e)
	}
	groups := to.Groups()
	for _, call := range []struct {
		name    string
		n       uintptr
		a, b, c uintptr
	}{
		{"setgroups", unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0},
		{"setresgid", unix.SYS_SETRESGID, unchanged, uintptr(to.GID()), unchanged},
		{"setresuid", unix.SYS_SETRESUID, unchanged, uintptr(to.UID()), unchanged},
	} {
		if _, _, e := syscall.RawSyscall(call.n, call.a, call.b, call.c); e != 0 {
			return fmt.Errorf("%s: %w", call.name, e)
		}
	}
	runtime.KeepAlive(groups)
	return nil
}

// opens has the player open a connection, write one byte, and be accepted by a server that reads it.
func (p *player) opens(l *guise.Listener, qos *guise.QoS) (near, server *guise.Conn) {
	p.t.Helper()
	var err error
	p.do(func() {
		if near, err = guise.Dial(l.Addr().String(), qos); err == nil {
			_, err = near.Write([]byte("x"))
		}
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { near.Close() })
	return near, accept(p.t, l)
}

// accept accepts a client and reads one byte or message of it.
func accept(t testing.TB, l *guise.Listener) *guise.Conn {
	t.Helper()
	c := acceptUnread(t, l)
	reads(t, c)
	return c
}

// acceptUnread accepts a client and leaves what it wrote.
func acceptUnread(t testing.TB, l *guise.Listener) *guise.Conn {
	t.Helper()
	c, err := l.AcceptPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// reads reads one byte or message.
func reads(t testing.TB, c *guise.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("reading what the client wrote gives %d bytes, %v", n, err)
	}
	c.SetReadDeadline(time.Time{})
}

// writes writes one byte or message on the calling thread.
func writes(t testing.TB, c *guise.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("writing: %v", err)
	}
}

// inside enters a scope of the server's client and reports errors.
func inside(t testing.TB, server *guise.Conn, fn func(s *guise.Scope)) {
	t.Helper()
	if err := server.RunAsClient(func(s *guise.Scope) error { fn(s); return nil }); err != nil {
		t.Error(err)
	}
}

// within is a scope that a goroutine of its own is in, and does there what it is told.
type within struct {
	t      testing.TB
	scope  *guise.Scope
	orders chan func()
	left   chan error
}

// enters has a new goroutine enter a scope of the server's client.
func enters(t testing.TB, server *guise.Conn) *within {
	t.Helper()
	w := &within{t: t, orders: make(chan func()), left: make(chan error, 1)}
	entered := make(chan struct{})
	go func() {
		err := server.RunAsClient(func(s *guise.Scope) error {
			w.scope = s
			close(entered)
			for f := range w.orders {
				f()
			}
			return nil
		})
		w.left <- err
		if w.scope == nil {
			close(entered)
		}
	}()
	<-entered
	if w.scope == nil {
		t.Fatalf("entering a scope: %v", <-w.left)
	}
	t.Cleanup(w.leave)
	return w
}

func (w *within) do(f func()) {
	done := make(chan struct{})
	w.orders <- func() { defer close(done); f() }
	<-done
}

func (w *within) becomes(when string, want *token.Token) (ok bool) {
	w.t.Helper()
	w.do(func() { ok = becomes(w.t, when, want) })
	return ok
}

func (w *within) stays(when string, want *token.Token) {
	w.t.Helper()
	w.do(func() { stays(w.t, when, want) })
}

// leave leaves the scope, once.
func (w *within) leave() {
	w.t.Helper()
	if w.orders == nil {
		return
	}
	close(w.orders)
	w.orders = nil
	if err := <-w.left; err != nil {
		w.t.Errorf("leaving a scope: %v", err)
	}
}

var dynamic = &guise.QoS{Tracking: guise.Dynamic}

// files makes a directory where everybody may make files, with a private file of each owner.
func files(t testing.TB, owners ...*token.Token) (dir string) {
	t.Helper()
	dir = testdir.Open(t, 0o777)
	for _, o := range owners {
		path := privateOf(dir, o)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, int(o.UID()), int(o.GID())); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func privateOf(dir string, owner *token.Token) string {
	return filepath.Join(dir, fmt.Sprint("private-", owner.UID()))
}

func opened(path string) error {
	f, err := os.Open(path)
	if err == nil {
		f.Close()
	}
	return err
}

// The tests play processes in this binary: actors, and those that this variable names.
const roleVariable = "GUISE_TEST_ROLE"

var roles = map[string]func(){}

func addRole(name string, play func()) struct{} {
	roles[name] = play
	return struct{}{}
}

func init() {
	actor.PlayIfAsked()
	name, ok := os.LookupEnv(roleVariable)
	if !ok {
		return
	}
	// Not on the first thread, which must not become somebody else alone.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		roles[name]()
	}()
	<-done
	os.Exit(0)
}

// must is for roles: what fails there ends the process.
func must(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "role %s: %v\n", os.Getenv(roleVariable), err)
		os.Exit(2)
	}
}

func must1[T any](v T, err error) T {
	must(err)
	return v
}

// roleProcess is this binary in a role.
type roleProcess struct {
	t      testing.TB
	cmd    *exec.Cmd
	orders io.WriteCloser
	said   *bufio.Reader
	ended  bool
}

func startRole(t testing.TB, name string, attr *syscall.SysProcAttr, env ...string) *roleProcess {
	t.Helper()
	p := &roleProcess{t: t, cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0", roleVariable+"="+name), env...)
	p.cmd.SysProcAttr = attr
	p.cmd.Stderr = os.Stderr
	var err error
	if p.orders, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.said = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting a process for role %s: %v", name, err)
	}
	t.Cleanup(p.end)
	return p
}

// tell gives the process an order and waits for what it answers.
func (p *roleProcess) tell(order string) string {
	p.t.Helper()
	fmt.Fprintln(p.orders, order)
	answer, err := p.said.ReadString('\n')
	if err != nil {
		p.t.Fatalf("a process was to %q: %v", order, err)
	}
	return strings.TrimSpace(answer)
}

// end waits for the process to end.
func (p *roleProcess) end() {
	p.t.Helper()
	if p.ended {
		return
	}
	p.ended = true
	p.orders.Close()
	waited := make(chan error, 1)
	go func() { waited <- p.cmd.Wait() }()
	select {
	case err := <-waited:
		if err != nil {
			p.t.Errorf("a process of role %s: %v", p.cmd.Env[len(p.cmd.Env)-1], err)
		}
	case <-time.After(4 * patience):
		p.cmd.Process.Kill()
		p.t.Errorf("a process in a role does not end: %v", <-waited)
	}
}

func chown(t testing.TB, path string, to actor.IDs) {
	t.Helper()
	if err := os.Chown(path, int(to.UID), int(to.GID)); err != nil {
		t.Fatal(err)
	}
}

// lockAnd locks the goroutine to its thread for good and calls f.
func lockAnd(f func() error) {
	runtime.LockOSThread()
	must(f())
}
