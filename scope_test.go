package guise_test

import (
	"errors"
	"fmt"
	"github.com/guise-project/guise/internal/testdir"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("acting as others takes root")
	}
}

func identity(t testing.TB, uid, gid uint32, groups ...uint32) *token.Token {
	t.Helper()
	tok, err := token.FromIDs(uid, gid, groups)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// threadIDs says what the kernel shows of this thread: effective ids, groups and effective capabilities.
func threadIDs() string {
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return err.Error()
	}
	var shown []string
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch name {
		case "Uid", "Gid":
			shown = append(shown, fields[1])
		case "Groups":
			shown = append(shown, strings.Join(fields, ","))
		}
	}
	return strings.Join(shown, " ")
}

// pair returns both ends of a connection whose client opened it in a scope of t, if t is not nil, and wrote one byte, which the
// server has read.
func pair(t testing.TB, l *guise.Listener, client *token.Token, qos *guise.QoS) (near, server *guise.Conn) {
	t.Helper()
	open := func(*guise.Scope) (err error) {
		if near, err = guise.Dial(l.Addr().String(), qos); err == nil {
			_, err = near.Write([]byte("x"))
		}
		return err
	}
	var err error
	if client != nil {
		err = guise.RunAs(client, open)
	} else {
		err = open(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	if server, err = l.AcceptPipe(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return near, server
}

func listenOn(t testing.TB, config *guise.ListenConfig) *guise.Listener {
	t.Helper()
	l, err := guise.Listen(filepath.Join(testdir.Open(t, 0o755), "pipe"), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestScopeIsLeftHoweverItsFunctionEnds(t *testing.T) {
	needRoot(t)
	client := identity(t, 61001, 61001, 61002)
	mine := errors.New("the function's own")
	for _, test := range []struct {
		name string
		end  func() error
		want error
	}{
		{"return", func() error { return nil }, nil},
		{"error", func() error { return mine }, mine},
		{"panic", func() error { panic("on purpose") }, nil},
		{"Goexit", func() error { runtime.Goexit(); return nil }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread() // so that it can be looked at afterwards
				defer runtime.UnlockOSThread()
				before := threadIDs()
				defer func() {
					_ = recover()
					if after := threadIDs(); after != before {
						t.Errorf("after the scope the thread is %s, before it was %s", after, before)
					}
				}()
				err := guise.RunAs(client, func(*guise.Scope) error {
					if got := threadIDs(); got != "61001 61001 61002" {
						t.Errorf("in the scope the thread is %s", got)
					}
					return test.end()
				})
				if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
					t.Errorf("RunAs returned %v, want %v", err, test.want)
				}
			}()
			<-done
		})
	}
}

func TestScopeGoRunsAsTheClientAndIsWaitedFor(t *testing.T) {
	needRoot(t)
	first, second := errors.New("first"), errors.New("second")
	var mu sync.Mutex
	var seen []string
	note := func() {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, threadIDs())
	}
	var plain string
	err := guise.RunAs(identity(t, 61001, 61001, 61002), func(s *guise.Scope) error {
		done := make(chan struct{})
		go func() { plain = threadIDs(); close(done) }()
		<-done
		s.Go(func() error { note(); return first })
		s.Go(func() error {
			s.Go(func() error { note(); return nil })
			note()
			return nil
		})
		s.Go(func() error { note(); runtime.Goexit(); return nil })
		return second
	})
	if !errors.Is(err, first) || !errors.Is(err, second) {
		t.Errorf("RunAs returned %v, want both the function's error and its goroutine's", err)
	}
	if len(seen) != 4 || slices.ContainsFunc(seen, func(s string) bool { return s != "61001 61001 61002" }) {
		t.Errorf("goroutines started with Scope.Go ran as %q, want 4 as the client, and RunAs to wait for them", seen)
	}
	if strings.HasPrefix(plain, "61001") {
		t.Errorf("a go statement in a scope ran as %s: docs/security.md says it runs as the server", plain)
	}
}

func TestManyScopesAtOnceDoNotMix(t *testing.T) {
	needRoot(t)
	var wait sync.WaitGroup
	for i := range uint32(100) {
		wait.Add(1)
		client := identity(t, 61000+i, 62000+i, 63000+i)
		go func() {
			defer wait.Done()
			want := fmt.Sprintf("%d %d %d", 61000+i, 62000+i, 63000+i)
			for range 20 {
				err := guise.RunAs(client, func(*guise.Scope) error {
					runtime.Gosched()
					if got := threadIDs(); got != want {
						return fmt.Errorf("the kernel shows %s, want %s", got, want)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wait.Wait()
}

func TestRunAsClientAllocatesNothing(t *testing.T) {
	needRoot(t)
	for _, tracking := range []guise.Tracking{guise.Static, guise.Dynamic} {
		t.Run(tracking.String(), func(t *testing.T) {
			_, server := pair(t, listenOn(t, nil), identity(t, 61001, 61001, 61002, 61003, 61004), &guise.QoS{Tracking: tracking})
			fn := func(*guise.Scope) error { return nil }
			n := testing.AllocsPerRun(200, func() {
				if err := server.RunAsClient(fn); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 && !raceEnabled {
				t.Errorf("RunAsClient allocates %v times", n)
			}
		})
	}
}

func TestLevelsBind(t *testing.T) {
	needRoot(t)
	l := listenOn(t, nil)
	client := identity(t, 61001, 61001)
	for _, test := range []struct {
		stated        guise.Level
		inForce       guise.Level
		identify, act error
	}{
		{guise.Anonymous, guise.Anonymous, guise.ErrLevel, guise.ErrLevel},
		{guise.Identification, guise.Identification, nil, guise.ErrLevel},
		{guise.LevelUnstated, guise.Impersonation, nil, nil},
		{guise.Impersonation, guise.Impersonation, nil, nil},
		{guise.Delegation, guise.Delegation, nil, nil},
	} {
		for _, tracking := range []guise.Tracking{guise.Static, guise.Dynamic} {
			t.Run(fmt.Sprintf("%v, %v", test.stated, tracking), func(t *testing.T) {
				near, server := pair(t, l, client, &guise.QoS{Level: test.stated, Tracking: tracking})
				// With dynamic tracking the level holds for what is announced later, too.
				for _, when := range []string{"at first", "after the client changed"} {
					if got := server.QoS().Level; got != test.inForce {
						t.Errorf("%s: level %v is in force, want %v", when, got, test.inForce)
					}
					tok, err := server.Client()
					if !errors.Is(err, test.identify) || (err == nil) != (test.identify == nil) {
						t.Errorf("%s: Client gives %v, want %v", when, err, test.identify)
					}
					called := false
					note := func(*guise.Scope) error { called = true; return nil }
					err = server.RunAsClient(note)
					if !errors.Is(err, test.act) || called != (test.act == nil) {
						t.Errorf("%s: RunAsClient gives %v (function called: %v), want %v", when, err, called, test.act)
					}
					if tok != nil {
						called = false
						if err = guise.RunAs(tok, note); !errors.Is(err, test.act) || called != (test.act == nil) {
							t.Errorf("%s: RunAs with the client's token gives %v (function called: %v), want %v", when, err, called, test.act)
						}
					}
					if _, err := near.Write([]byte("y")); err != nil { // from outside its scope, as root
						t.Fatal(err)
					}
					if _, err := server.Read(make([]byte, 1)); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// TestHopCarriesLevelAndEffectiveOnly has B open C's pipe in a scope of a client that allows less than B states.
func TestHopCarriesLevelAndEffectiveOnly(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		a, b, want guise.QoS
	}{
		{guise.QoS{Level: guise.Impersonation}, guise.QoS{Level: guise.Delegation}, guise.QoS{Level: guise.Impersonation}},
		{guise.QoS{Level: guise.Delegation}, guise.QoS{Level: guise.Delegation}, guise.QoS{Level: guise.Delegation}},
		{guise.QoS{EffectiveOnly: true}, guise.QoS{}, guise.QoS{Level: guise.Impersonation, EffectiveOnly: true}},
	} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v then %+v, opened before the scope: %v", test.a, test.b, before), func(t *testing.T) {
				test.b.Tracking = guise.Dynamic
				_, b := pair(t, listenOn(t, nil), identity(t, 61001, 61001), &test.a)
				l := listenOn(t, nil)
				var hop, c *guise.Conn
				if before {
					hop, c = pair(t, l, nil, &test.b)
				}
				err := b.RunAsClient(func(*guise.Scope) error {
					if !before {
						hop, c = pair(t, l, nil, &test.b)
					}
					_, err := hop.Write([]byte("y"))
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.Read(make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				got, err := c.Client()
				if err != nil {
					t.Fatal(err)
				}
				if got.Level() != test.want.Level || got.EffectiveOnly() != test.want.EffectiveOnly || got.UID() != 61001 {
					t.Errorf("C sees %s, level %v, effective-only %v; want uid 61001, %v, %v", got, got.Level(), got.EffectiveOnly(), test.want.Level, test.want.EffectiveOnly)
				}
			})
		}
	}
}

func TestConnectionBelongsToItsScope(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		stated, listener guise.Tracking
		want             error
	}{
		{guise.Dynamic, guise.TrackingUnstated, guise.ErrWrongScope},
		{guise.TrackingUnstated, guise.Dynamic, guise.ErrWrongScope},
		{guise.TrackingUnstated, guise.TrackingUnstated, nil},
		{guise.Static, guise.Dynamic, nil},
	} {
		t.Run(fmt.Sprintf("stated %v, listener %v", test.stated, test.listener), func(t *testing.T) {
			l := listenOn(t, &guise.ListenConfig{Tracking: test.listener})
			var near *guise.Conn
			write := func() error { _, err := near.Write([]byte("y")); return err }
			err := guise.RunAs(identity(t, 61001, 61001), func(s *guise.Scope) (err error) {
				if near, err = guise.Dial(l.Addr().String(), &guise.QoS{Tracking: test.stated}); err != nil {
					return err
				}
				server, err := l.AcceptPipe()
				if err != nil {
					return err
				}
				t.Cleanup(func() { near.Close(); server.Close() })
				outside := make(chan error)
				go func() { outside <- write() }()
				// What a client that stated nothing may do depends on the server's answer, which it gives when it reads.
				if err := server.WaitClient(t.Context()); err != nil {
					return err
				}
				if err := <-outside; !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
					t.Errorf("a write from outside the scope gives %v, want %v", err, test.want)
				}
				for where, in := range map[string]func() error{
					"in the scope": write,
					"in a scope in the scope": func() error {
						return guise.RunAs(identity(t, 61002, 61002), func(*guise.Scope) error { return write() })
					},
					"in a goroutine of the scope": func() error {
						inner := make(chan error, 1)
						s.Go(func() error { inner <- write(); return nil })
						return <-inner
					},
				} {
					if err := in(); err != nil {
						t.Errorf("a write %s gives %v", where, err)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := write(); err != nil {
				t.Errorf("a write after the scope has ended gives %v", err)
			}
		})
	}
}

// TestContextTravelsWithTheData has a client write under one context after the other before the server reads anything.
func TestContextTravelsWithTheData(t *testing.T) {
	needRoot(t)
	identities := []*token.Token{
		identity(t, 61001, 61001, 61101), identity(t, 61002, 61001, 61101), identity(t, 61002, 61002, 61101), identity(t, 61002, 61002, 61102),
		identity(t, 61002, 61002, 61102), identity(t, 61001, 61001, 61101),
	}
	for _, message := range []bool{false, true} {
		for _, size := range []int{1, 3, 4096} {
			t.Run(fmt.Sprintf("message=%v, read %d at a time", message, size), func(t *testing.T) {
				l := listenOn(t, &guise.ListenConfig{Message: message})
				near, err := guise.Dial(l.Addr().String(), &guise.QoS{Tracking: guise.Dynamic})
				if err != nil {
					t.Fatal(err)
				}
				for i, tok := range identities {
					err := guise.RunAs(tok, func(*guise.Scope) error {
						_, err := near.Write([]byte(strings.Repeat(string(rune('a'+i)), 5)))
						return err
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				near.Close()
				server := acceptUnread(t, l)
				read := ""
				for buf := make([]byte, size); ; {
					n, err := server.Read(buf)
					if n == 0 {
						break
					}
					if err != nil && !errors.Is(err, guise.ErrMoreData) {
						t.Fatal(err)
					}
					read += string(buf[:n])
					tok, err := server.Client()
					if err != nil {
						t.Fatal(err)
					}
					for _, letter := range buf[:n] {
						if want := identities[letter-'a']; tok.UID() != want.UID() || tok.GID() != want.GID() || !slices.Equal(tok.Groups(), want.Groups()) {
							t.Errorf("%q was written by %s, and read as if by %s", letter, want, tok)
						}
					}
				}
				if want := "aaaaabbbbbcccccdddddeeeeefffff"; read != want {
					t.Errorf("read %q, want %q", read, want)
				}
			})
		}
	}
}

func TestCommandIsTheClientForGood(t *testing.T) {
	needRoot(t)
	dir := testdir.Open(t, 0o755)
	for name, owner := range map[string]int{"clients": 61001, "servers": 0} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	everything := "grep -E '^(Uid|Gid|Groups|Cap...):' /proc/self/status | tr '\\t' ' ' | tr -s ' ' | sed 's/ $//'"
	noCaps := "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\nCapBnd: 0000000000000000\nCapAmb: 0000000000000000\n"
	client := identity(t, 61001, 61002, 61003, 61004)
	rootOf := func(c token.Capabilities, only bool) *token.Token {
		return identity(t, 0, 0).Restrict(token.Statement{EffectiveOnly: only, Capabilities: c})
	}
	some := token.Capabilities{Permitted: 0x6, Effective: 0x2}
	for _, test := range []struct {
		name   string
		token  *token.Token
		dir    string
		script string
		out    string
		status int
	}{
		{"ids, groups and capabilities", client, "", everything,
			"Uid: 61001 61001 61001 61001\nGid: 61002 61002 61002 61002\nGroups: 61003 61004\n" + noCaps, 0},
		{"a root client's capabilities", rootOf(some, false), "", "grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2",
			"0000000000000006\n0000000000000006\n0000000000000006\n", 0},
		{"an effective-only root client's", rootOf(some, true), "", "grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2",
			"0000000000000002\n0000000000000002\n0000000000000002\n", 0},
		{"a session of its own", client, "", `test $(cut -d' ' -f6 /proc/self/stat) != ` + fmt.Sprint(getsid()) + " && echo yes", "yes\n", 0},
		{"no terminal", client, "", "cut -d' ' -f7 /proc/self/stat", "0\n", 0},
		{"the client's private directory", client, filepath.Join(dir, "clients"), "touch made && stat -c %u:%g made", "61001:61002\n", 0},
		{"the server's private directory", client, filepath.Join(dir, "servers"), "true", "", 125},
		{"its exit status", client, "", "exit 7", "", 7},
	} {
		for _, where := range []string{"in the scope", "after the scope"} {
			t.Run(test.name+" "+where, func(t *testing.T) {
				var out strings.Builder
				var start, wait func() error
				err := guise.RunAs(test.token, func(s *guise.Scope) error {
					cmd := s.CommandIn(test.dir, "/bin/sh", "-c", test.script)
					cmd.Stdout = &out
					start, wait = cmd.Start, cmd.Wait
					if where == "in the scope" {
						return start()
					}
					return nil
				})
				if err == nil && where != "in the scope" {
					err = start()
				}
				if err != nil {
					t.Fatal(err)
				}
				if status := exitStatus(wait()); status != test.status {
					t.Errorf("it ended with %d, want %d", status, test.status)
				}
				if out.String() != test.out {
					t.Errorf("it printed\n%s\nwant\n%s", &out, test.out)
				}
			})
		}
	}
}

func TestCommandThatCannotRun(t *testing.T) {
	needRoot(t)
	dir := testdir.Open(t, 0o755)
	private := filepath.Join(dir, "private")
	if err := os.WriteFile(private, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, program string
		status        int
	}{
		{"no such program", filepath.Join(dir, "nothing"), 127},
		{"no such program in PATH", "guise-no-such-program", 127},
		{"one that the client may not run", private, 126},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out []byte
			var err error
			_ = guise.RunAs(identity(t, 61001, 61001), func(s *guise.Scope) error {
				out, err = s.Command(test.program).CombinedOutput()
				return nil
			})
			if status := exitStatus(err); status != test.status {
				t.Errorf("it ended with %d, want %d; it printed: %s", status, test.status, out)
			}
			if !strings.Contains(string(out), "guise: uid 61001") {
				t.Errorf("it does not say who could not run what: %s", out)
			}
		})
	}
}

func TestScopeAfterItsEnd(t *testing.T) {
	needRoot(t)
	var ended *guise.Scope
	if err := guise.RunAs(identity(t, 61001, 61001), func(s *guise.Scope) error { ended = s; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := ended.Command("true").Start(); !errors.Is(err, guise.ErrScopeEnded) {
		t.Errorf("Command of an ended scope gives %v, want %v", err, guise.ErrScopeEnded)
	}
	defer func() {
		if recover() == nil {
			t.Error("Go of an ended scope does not panic")
		}
	}()
	ended.Go(func() error { return nil })
}

func exitStatus(err error) int {
	var exit interface{ ExitCode() int }
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

func getsid() int {
	sid, _, _ := syscall.RawSyscall(unix.SYS_GETSID, 0, 0, 0)
	return int(sid)
}
