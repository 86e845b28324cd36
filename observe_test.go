package guise_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// watching has the events of a pipe.
type watching struct {
	t     *testing.T
	next  func() (e *guise.WatchEvent, err error, ok bool)
	begun *guise.WatchEvent
}

// pullEvents is iter.Pull2 of a watch for callers on any thread: scopes lock theirs. stop waits until the watch has ended.
func pullEvents(t *testing.T, name string) (next func() (*guise.WatchEvent, error, bool), stop func()) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	type pulled struct {
		e   *guise.WatchEvent
		err error
	}
	all := make(chan pulled)
	go func() {
		defer close(all)
		for e, err := range guise.Watch(ctx, name) {
			all <- pulled{e, err}
		}
	}()
	next = func() (*guise.WatchEvent, error, bool) {
		p, ok := <-all
		return p.e, p.err, ok
	}
	return next, func() {
		cancel()
		for range all {
		}
	}
}

// startWatch watches a listener's connections and waits until the watch has begun.
func startWatch(t *testing.T, l *guise.Listener) *watching {
	t.Helper()
	next, stop := pullEvents(t, l.Addr().String())
	t.Cleanup(stop)
	w := &watching{t: t, next: next}
	w.begun = w.want(guise.WatchBegun)
	return w
}

// want returns the next event, which has to be of a kind.
func (w *watching) want(kind guise.WatchKind) *guise.WatchEvent {
	w.t.Helper()
	e, err, ok := w.next()
	if !ok || err != nil {
		w.t.Fatalf("the watch ends (%v), want an event %q", err, kind)
	}
	if e.Kind != kind {
		b, _ := json.Marshal(e)
		w.t.Fatalf("the next event is %s, want one that is %q", b, kind)
	}
	return e
}

// as fails the test unless the event's connection has a context of the ids of want.
func (w *watching) as(e *guise.WatchEvent, want *token.Token) {
	w.t.Helper()
	c := e.Connection.Context
	if c == nil || c.UID != want.UID() || c.GID != want.GID() || fmt.Sprint(c.Groups) != fmt.Sprint(want.Groups()) {
		w.t.Errorf("%s: the context is %+v, want %s", e.Kind, c, want)
	}
}

func listenWatched(t *testing.T, config guise.ListenConfig) *guise.Listener {
	t.Helper()
	config.Watch = true
	return listenOn(t, &config)
}

func TestWatchTellsWhatHappens(t *testing.T) {
	needRoot(t)
	alice, bob := identity(t, 61001, 61001, 61005), identity(t, 61002, 61002)
	l := listenWatched(t, guise.ListenConfig{})
	w := startWatch(t, l)
	if s := w.begun.Server; s.Path != l.Addr().String() || s.PID != os.Getpid() || s.UID != 0 || w.begun.Connections != 0 {
		t.Errorf("the watch begins with %+v, %+v", w.begun, s)
	}
	near, server := pair(t, l, alice, &guise.QoS{Tracking: guise.Dynamic, Level: guise.Delegation})
	opened := w.want(guise.WatchOpened).Connection
	if opened.Client.UID != 61001 || fmt.Sprint(opened.Client.Groups) != "[61005]" || opened.PID != os.Getpid() || opened.Level != guise.LevelUnstated || opened.Context != nil {
		t.Errorf("a client was let in: %+v", opened)
	}
	if self, _ := os.Executable(); opened.Program != self {
		t.Errorf("its program is %q, want %q", opened.Program, self)
	}
	known := w.want(guise.WatchKnown)
	if c := known.Connection; c.ID != opened.ID || c.Level != guise.Delegation || c.Tracking != guise.Dynamic || len(c.Via) != 0 {
		t.Errorf("it is known: %+v", c)
	}
	w.as(known, alice)

	err := server.RunAsClient(func(*guise.Scope) error {
		entered := w.want(guise.WatchEntered)
		w.as(entered, alice)
		if entered.Connection.Scopes != 1 {
			t.Errorf("in a scope %d are in progress", entered.Connection.Scopes)
		}
		writeAs(t, near, bob, 'b')
		if _, err := server.Read(make([]byte, 1)); err != nil {
			return err
		}
		changed := w.want(guise.WatchChanged)
		w.as(changed, bob)
		if changed.Connection.Source == known.Connection.Source {
			t.Errorf("what another scope wrote is of the same source")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if left := w.want(guise.WatchLeft); left.Connection.Scopes != 0 {
		t.Errorf("after the scope %d are in progress", left.Connection.Scopes)
	}

	// A second one comes later, and is told what is there.
	second := startWatch(t, l)
	if second.begun.Connections != 1 {
		t.Errorf("%d connections are there, want 1", second.begun.Connections)
	}
	there := second.want(guise.WatchThere)
	second.as(there, bob)
	if there.Connection.ID != opened.ID {
		t.Errorf("there is connection %d, want %d", there.Connection.ID, opened.ID)
	}

	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	server.Close()
	for _, one := range []*watching{w, second} {
		if e := one.want(guise.WatchFrozen); e.Connection.Tracking != guise.Static {
			t.Errorf("after Freeze tracking is %v", e.Connection.Tracking)
		}
		one.want(guise.WatchClosed)
	}
	l.Close()
	for _, one := range []*watching{w, second} {
		one.want(guise.WatchEnded)
		if e, err, ok := one.next(); ok {
			t.Errorf("after the end there is %+v, %v", e, err)
		}
	}
}

func TestWatchShowsTheChainAndScopesThatFollow(t *testing.T) {
	needRoot(t)
	if err := guise.CanFollow(0); err != nil {
		t.Skip(err)
	}
	alice, bob, carol := identity(t, 61001, 61001), identity(t, 61002, 61002), identity(t, 61003, 61003)
	_, middle := pair(t, listenOn(t, nil), alice, &guise.QoS{Tracking: guise.Dynamic})
	l := listenWatched(t, guise.ListenConfig{})
	w := startWatch(t, l)
	var near *guise.Conn
	err := middle.RunAsClient(func(*guise.Scope) (err error) {
		if near, err = guise.Dial(l.Addr().String(), &guise.QoS{Tracking: guise.Dynamic}); err == nil {
			_, err = near.Write([]byte("x"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far := acceptUnread(t, l)
	if _, err := far.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	w.want(guise.WatchOpened)
	known := w.want(guise.WatchKnown)
	w.as(known, alice)
	c, err := far.Client()
	if err != nil {
		t.Fatal(err)
	}
	if via := c.Via(); len(via) == 0 || fmt.Sprint(known.Connection.Via) != fmt.Sprint(via) {
		t.Errorf("the chain is shown as %v, it is %v", known.Connection.Via, via)
	}
	if known.Connection.Source == 0 {
		t.Error("a scope's context is shown as the process's")
	}

	// A scope that was entered for the client's process goes on while the client speaks for another.
	writeChanged(t, near, bob, 'b')
	if _, err := far.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	w.as(w.want(guise.WatchChanged), bob)
	err = far.RunAsClient(func(s *guise.Scope) error {
		w.want(guise.WatchEntered)
		writeAs(t, near, alice, 'a')
		if _, err := far.Read(make([]byte, 1)); err != nil {
			return err
		}
		w.as(w.want(guise.WatchChanged), alice)
		writeChanged(t, near, carol, 'c')
		followed := w.want(guise.WatchFollowed)
		w.as(followed, alice)
		if f := followed.Followed; f.Scopes != 1 || f.Context.UID != carol.UID() || f.Source != 0 {
			t.Errorf("scopes followed: %+v", f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWatchTellsOfTheLostAndHidesTheAnonymous(t *testing.T) {
	needRoot(t)
	alice := identity(t, 61001, 61001)
	for _, test := range []struct {
		level guise.Level
		kind  guise.WatchKind
		lost  bool
	}{{guise.Anonymous, guise.WatchKnown, false}, {guise.Identification, guise.WatchLost, true}} {
		config := guise.ListenConfig{}
		if test.lost {
			config.Level = guise.Impersonation
		}
		l := listenWatched(t, config)
		w := startWatch(t, l)
		var near *guise.Conn
		err := guise.RunAs(alice, func(*guise.Scope) (err error) {
			near, err = guise.Dial(l.Addr().String(), &guise.QoS{Level: test.level})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		server := acceptUnread(t, l)
		if err := server.WaitClient(t.Context()); (err != nil) != test.lost {
			t.Fatal(err)
		}
		w.want(guise.WatchOpened)
		if c := w.want(test.kind).Connection; c.Context != nil || (c.Lost != "") != test.lost || c.Level != test.level {
			t.Errorf("at level %v: %+v", test.level, c)
		}
	}
}

// watchError returns the error that a watch of name ends with at once.
func watchError(t *testing.T, name string) error {
	t.Helper()
	for e, err := range guise.Watch(t.Context(), name) {
		if err != nil {
			return err
		}
		t.Errorf("the watch of %s yields %+v", name, e)
	}
	return nil
}

func TestWatchSaysWhyNot(t *testing.T) {
	unwatched := listenOn(t, nil)
	dir := testdir.Open(t, 0o755)
	dead := filepath.Join(dir, "dead")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: dead}); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	for _, test := range []struct {
		name string
		want error
	}{
		{filepath.Join(dir, "none"), guise.ErrNoPipe},
		{"no such name", guise.ErrBadName},
		{dead, guise.ErrNobodyListens},
		{unwatched.Addr().String(), guise.ErrNotWatched},
	} {
		if err := watchError(t, test.name); !errors.Is(err, test.want) {
			t.Errorf("watching %s: %v, want %v", test.name, err, test.want)
		}
	}
	// Whoever asked in vain was no client.
	far, err := net.Dial("unix", unwatched.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	server, err := unwatched.AcceptPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	far.Write([]byte("x"))
	if n, err := server.Read(make([]byte, 2)); n != 1 {
		t.Errorf("the first client is not the one that connected: %d, %v", n, err)
	}
}

func TestWatchIsForRootAndTheServersUser(t *testing.T) {
	needRoot(t)
	alice, bob := identity(t, 61001, 61001), identity(t, 61002, 61002)
	for _, owner := range []*token.Token{nil, alice} {
		dir := testdir.Open(t, 0o755)
		only := "only root may"
		listen := func(*guise.Scope) error {
			l, err := guise.Listen(filepath.Join(dir, "pipe"), &guise.ListenConfig{Watch: true})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}
		if owner == nil {
			if err := listen(nil); err != nil {
				t.Fatal(err)
			}
		} else {
			only = "only root and uid 61001, the server's, may"
			if err := os.Chown(dir, 61001, 61001); err != nil {
				t.Fatal(err)
			}
			if err := guise.RunAs(owner, listen); err != nil {
				t.Fatal(err)
			}
		}
		pipe := filepath.Join(dir, "pipe")
		socket := pipe + "~watch"
		info, err := os.Stat(socket)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the watch socket is %v, %v", info, err)
		}
		for _, mode := range []fs.FileMode{0o600, 0o666} { // with the second only the server itself is in the way
			if err := os.Chmod(socket, mode); err != nil {
				t.Fatal(err)
			}
			for _, who := range []*token.Token{nil, alice, bob} {
				watch := func(*guise.Scope) error {
					for _, err := range guise.Watch(t.Context(), pipe) {
						return err
					}
					return errors.New("nothing came")
				}
				err := error(nil)
				if who == nil {
					err = watch(nil)
				} else {
					err = guise.RunAs(who, watch)
				}
				if who == nil || who == owner {
					if err != nil {
						t.Errorf("mode %04o, server %v: %v can't watch: %v", mode, owner, who, err)
					}
				} else if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), only) {
					t.Errorf("mode %04o, server %v: %v watches: %v, want an error that says %q", mode, owner, who, err, only)
				}
			}
		}
	}
}

// TestSlowWatcherMissesEvents has one watcher read nothing while far more happens than can wait for it.
func TestSlowWatcherMissesEvents(t *testing.T) {
	needRoot(t)
	const scopes = 6000
	l := listenWatched(t, guise.ListenConfig{})
	_, server := pair(t, l, identity(t, 61001, 61001), nil)
	slow, err := net.Dial("unix", l.Addr().String()+"~watch")
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	slow.SetDeadline(time.Now().Add(30 * time.Second))
	lines := bufio.NewScanner(slow)
	lines.Buffer(nil, 1<<20)
	next := func() (e guise.WatchEvent) {
		if !lines.Scan() {
			t.Fatalf("the watch ends: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := next(); e.Kind != guise.WatchBegun {
		t.Fatalf("it begins with %+v", e)
	}
	for range scopes {
		if err := server.RunAsClient(func(*guise.Scope) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	server.Close()
	told, missed, connections := 0, 0, 1
	for told+missed < 2*scopes+1 {
		switch e := next(); e.Kind {
		case guise.WatchThere:
		case guise.WatchMissed:
			missed += int(e.Missed)
			connections = e.Connections
		default:
			told++
			if e.Kind == guise.WatchClosed {
				connections--
			}
		}
	}
	if missed == 0 || told+missed != 2*scopes+1 {
		t.Errorf("of %d events %d were told and %d missed", 2*scopes+1, told, missed)
	}
	if connections != 0 {
		t.Errorf("it was told that %d connections are left, there is none", connections)
	}
	// It goes on with what happens then.
	near, _ := pair(t, l, nil, nil)
	defer near.Close()
	if e := next(); e.Kind != guise.WatchOpened {
		t.Errorf("what happens after that is told as %+v", e)
	}
}

func TestWatchSocketComesAndGoesWithTheListener(t *testing.T) {
	leftover.ByThis(t, func() {
		path := filepath.Join(testdir.Open(t, 0o755), "pipe")
		// A server that died left its own behind.
		left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + "~watch", Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		left.SetUnlinkOnClose(false)
		left.Close()

		l, err := guise.Listen(path, &guise.ListenConfig{Watch: true, Message: true})
		if err != nil {
			t.Fatal(err)
		}
		next, stop := pullEvents(t, path)
		defer stop()
		if e, err, _ := next(); err != nil || !e.Server.Message {
			t.Fatalf("watching begins with %+v, %v", e, err)
		}
		// More than may watch at once are told so.
		var stops []func()
		for range 20 {
			more, stop := pullEvents(t, path)
			stops = append(stops, stop)
			if _, err, _ := more(); err != nil && !errors.Is(err, guise.ErrBusy) {
				t.Errorf("too many watch: %v", err)
			} else if err != nil {
				break
			}
		}
		if len(stops) == 20 {
			t.Error("20 may watch at once")
		}
		for _, stop := range stops {
			stop()
		}
		l.Close()
		if e, err, _ := next(); err != nil || e.Kind != guise.WatchEnded {
			t.Errorf("after Close the watch yields %+v, %v", e, err)
		}
		if names, _ := filepath.Glob(path + "*"); len(names) != 0 {
			t.Errorf("after Close there are %v", names)
		}
		if err := watchError(t, path); !errors.Is(err, guise.ErrNoPipe) {
			t.Errorf("after Close watching fails with %v", err)
		}
	})
}

func TestSocketOfAnotherIsNotWatched(t *testing.T) {
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	made, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	l, err := guise.ListenOn(made, &guise.ListenConfig{Watch: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := watchError(t, path); !errors.Is(err, guise.ErrNotWatched) {
		t.Errorf("watching it: %v", err)
	}
	if !strings.Contains(log.String(), "nobody can watch this pipe") {
		t.Errorf("the log says %s", log.String())
	}
}

func TestLongPathIsServedAndNotWatched(t *testing.T) {
	dir := testdir.Open(t, 0o755)
	path := filepath.Join(dir, strings.Repeat("p", 105-len(dir)))
	var log bytes.Buffer
	l, err := guise.Listen(path, &guise.ListenConfig{Watch: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := watchError(t, path); !errors.Is(err, guise.ErrNotWatched) || !strings.Contains(log.String(), "bytes long") {
		t.Errorf("watching it: %v; the log says %s", err, log.String())
	}
}

// TestWatchOfWhatIsNoServer has somebody else answer.
func TestWatchOfWhatIsNoServer(t *testing.T) {
	for _, test := range []struct {
		says, want string
		is         error
	}{
		{"", "the server has gone", io.ErrUnexpectedEOF}, // to whom it should let watch
		{"hello\n", "no event", nil},
		{`{"event":"begun","version":2,"server":{}}` + "\n", "version 2", nil},
		{`{"event":"begun","version":1,"server":{}}` + "\n", "the server has gone", io.ErrUnexpectedEOF},
	} {
		path := filepath.Join(testdir.Open(t, 0o755), "pipe")
		l, err := net.Listen("unix", path+"~watch")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				io.WriteString(c, test.says)
				c.Close()
			}
		}()
		var last error
		for _, err := range guise.Watch(t.Context(), path) {
			last = err
		}
		var operation *guise.OpError
		if !errors.As(last, &operation) || operation.Op != "watch" || !strings.Contains(last.Error(), test.want) || test.is != nil && !errors.Is(last, test.is) {
			t.Errorf("a server that says %q: %v, want an error with %q", test.says, last, test.want)
		}
		l.Close()
	}
}

// TestWatchAgreesWithWhatIs has connections come, change and go on many goroutines. What those who watch know in the end is what
// there is, however much they missed.
func TestWatchAgreesWithWhatIs(t *testing.T) {
	needRoot(t)
	const workers, rounds = 4, 60
	l := listenWatched(t, guise.ListenConfig{})
	var knows [3]map[uint64]*guise.WatchedConnection
	var watchers sync.WaitGroup
	for i := range knows {
		knows[i] = make(map[uint64]*guise.WatchedConnection)
		next, stop := pullEvents(t, l.Addr().String())
		defer stop()
		if _, err, _ := next(); err != nil {
			t.Fatal(err)
		}
		watchers.Add(1)
		go func() {
			defer watchers.Done()
			for {
				e, err, ok := next()
				if !ok || err != nil {
					t.Errorf("watcher %d: %v", i, err)
					return
				}
				switch c := e.Connection; {
				case c == nil:
					clear(knows[i])
				case c.Client.UID == 61999: // the last to be told
					return
				case e.Kind == guise.WatchClosed:
					delete(knows[i], c.ID)
				default:
					knows[i][c.ID] = c
				}
			}
		}()
	}
	var mu sync.Mutex // of dialling and accepting: so that the two ends are of one connection
	kept := make([]uint32, workers)
	var work sync.WaitGroup
	for i := range workers {
		work.Add(1)
		go func() {
			defer work.Done()
			for round := range rounds {
				last := uint32(62000 + 100*i + round)
				mu.Lock()
				near, err := guise.Dial(l.Addr().String(), &guise.QoS{Tracking: guise.Dynamic})
				if err != nil {
					mu.Unlock()
					t.Error(err)
					return
				}
				server, err := l.AcceptPipe()
				mu.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { near.Close(); server.Close() })
				for _, uid := range []uint32{61001, 61002, last} {
					who, err := token.FromIDs(uid, uid, nil)
					if err == nil {
						err = guise.RunAs(who, func(*guise.Scope) error {
							_, err := near.Write([]byte("x"))
							return err
						})
					}
					if err == nil {
						_, err = server.Read(make([]byte, 1))
					}
					if err == nil {
						err = server.RunAsClient(func(*guise.Scope) error { return nil })
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
				if round == rounds-1 {
					kept[i] = last
				} else {
					server.Close()
				}
			}
		}()
	}
	work.Wait()
	pair(t, l, identity(t, 61999, 61999), nil)
	watchers.Wait()
	for i, know := range knows {
		var uids []uint32
		for _, c := range know {
			if c.Context == nil || c.Scopes != 0 {
				t.Errorf("watcher %d knows %+v", i, c)
				continue
			}
			uids = append(uids, c.Context.UID)
		}
		slices.Sort(uids)
		if !slices.Equal(uids, kept) {
			t.Errorf("watcher %d knows clients %v, want %v", i, uids, kept)
		}
	}
}

func TestUnwatchedScopesCostNothing(t *testing.T) {
	needRoot(t)
	for _, tracking := range []guise.Tracking{guise.Static, guise.Dynamic} {
		l := listenWatched(t, guise.ListenConfig{})
		_, server := pair(t, l, identity(t, 61001, 61001, 61002), &guise.QoS{Tracking: tracking})
		fn := func(*guise.Scope) error { return nil }
		n := testing.AllocsPerRun(200, func() {
			if err := server.RunAsClient(fn); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 && !raceEnabled {
			t.Errorf("with %v tracking RunAsClient allocates %v times, though nobody watches", tracking, n)
		}
	}
}
