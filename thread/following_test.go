//go:build amd64 || arm64

package thread_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

func needFollowing(t *testing.T) {
	t.Helper()
	needRoot(t)
	if err := thread.Following(); err != nil {
		t.Fatal(err)
	}
}

// In a person's ids each tells the others, so that a thread that is half one and half another shows.
const (
	personGID   = 1000 // more than the uid
	personGroup = 2000
)

func person(t *testing.T, uid uint32) *token.Token {
	t.Helper()
	return mustToken(t, uid, uid+personGID, uid+personGroup)
}

// who returns the calling thread's ids, all by raw system calls.
func who() (uid, gid uint32, groups []uint32) {
	u, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
	g, _, _ := syscall.RawSyscall(unix.SYS_GETEGID, 0, 0, 0)
	n, _ := unix.Getgroups()
	for _, id := range n {
		groups = append(groups, uint32(id))
	}
	slices.Sort(groups)
	return uint32(u), uint32(g), groups
}

// isNow reports an error unless the calling thread is exactly what tok says, of a server that has the capabilities.
func isNow(t *testing.T, when string, tok *token.Token, server token.CapSet) {
	t.Helper()
	uid, gid, groups := who()
	if uid != tok.UID() || gid != tok.GID() || !slices.Equal(groups, tok.Groups()) {
		t.Errorf("%s the thread is uid %d, gid %d, %d groups %.60s, want %.120s", when, uid, gid, len(groups), fmt.Sprint(groups), tok)
	}
	sets, e := capability.Get()
	if want := tok.Capabilities().Effective & server; e != 0 || sets.Effective != want {
		t.Errorf("%s the thread has capabilities %v (%v), want %v", when, sets.Effective, e, want)
	}
}

// arrive returns after every signal that was sent to the calling thread before was handled: the kernel looks for them when a
// system call returns.
func arrive() { syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) }

// enter is on a thread of the test's own.
func enter(t *testing.T, tok *token.Token) *thread.Worn {
	t.Helper()
	w := &thread.Worn{Follow: true}
	if err := w.Enter(tok); err != nil {
		t.Errorf("entering a scope of %s: %v", tok, err)
		runtime.Goexit()
	}
	return w
}

func change(t *testing.T, w *thread.Worn, tok *token.Token) {
	t.Helper()
	if err := w.Change(tok); err != nil {
		t.Errorf("changing to %.80s: %v", tok, err)
	}
}

func leave(t *testing.T, w *thread.Worn) {
	t.Helper()
	if err := w.Leave(); err != nil {
		t.Errorf("Leave: %v", err)
	}
}

// wayBack returns what a scope does not change of a thread's status: real and saved ids, and all capabilities but the effective.
func wayBack(status string) string {
	var kept []string
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch words := strings.Fields(value); name {
		case "Uid", "Gid":
			kept = append(kept, name+": "+words[0]+" "+words[2])
		case "CapInh", "CapPrm", "CapBnd", "CapAmb":
			kept = append(kept, name+": "+value)
		}
	}
	return strings.Join(kept, "\n")
}

func capabilities(t *testing.T) capability.Sets {
	t.Helper()
	sets, e := capability.Get()
	mustDo(t, "capget", e)
	return sets
}

// rootWith is a root client's token with some capabilities.
func rootWith(t *testing.T, caps token.CapSet) *token.Token {
	t.Helper()
	return mustToken(t, 0, 0).Restrict(token.Statement{Capabilities: token.Capabilities{Permitted: caps, Effective: caps}})
}

// until waits for what another thread does, by looking.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for begun := time.Now(); !is(); runtime.Gosched() {
		if time.Since(begun) > 30*time.Second {
			t.Errorf("waited too long until %s", what)
			runtime.Goexit()
		}
	}
}

// taskStatus returns a field of another thread's status.
func taskStatus(tid int, field string) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", tid))
	for line := range strings.Lines(string(b)) {
		if name, value, _ := strings.Cut(line, ":"); name == field {
			return strings.Fields(value)
		}
	}
	return nil
}

func wearsUID(tid int, uid uint32) bool {
	ids := taskStatus(tid, "Uid")
	return len(ids) == 4 && ids[1] == fmt.Sprint(uid)
}

// blockedIn reports whether a thread sleeps in a system call.
func blockedIn(tid int, call uintptr) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", tid))
	number, _, _ := strings.Cut(string(b), " ")
	state := taskStatus(tid, "State")
	return number == fmt.Sprint(call) && len(state) > 0 && state[0] == "S"
}

func TestBlockedThreadsFollow(t *testing.T) {
	needFollowing(t)
	pipe := func(t *testing.T) (r, w int) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
		return p[0], p[1]
	}
	for _, test := range []struct {
		name string
		call uintptr
		// make returns what blocks, and what ends it if the signal itself does not.
		make func(t *testing.T) (block func() error, wake func())
		want error
	}{
		{"read of a pipe, which goes on", unix.SYS_READ, func(t *testing.T) (func() error, func()) {
			r, w := pipe(t)
			return func() error {
				n, err := unix.Read(r, make([]byte, 10))
				if err == nil && n != 4 {
					err = fmt.Errorf("%d bytes were read, not 4", n)
				}
				return err
			}, func() { unix.Write(w, []byte("wake")) }
		}, nil},
		{"accept, which goes on", unix.SYS_ACCEPT4, func(t *testing.T) (func() error, func()) {
			l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(l); unix.Close(c) })
			path := filepath.Join(testdir.Open(t, 0o777), "socket")
			if err := errors.Join(unix.Bind(l, &unix.SockaddrUnix{Name: path}), unix.Listen(l, 1)); err != nil {
				t.Fatal(err)
			}
			return func() error {
				fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
				if err == nil {
					unix.Close(fd)
				}
				return err
			}, func() { unix.Connect(c, &unix.SockaddrUnix{Name: path}) }
		}, nil},
		{"a channel, which is a futex", unix.SYS_FUTEX, func(*testing.T) (func() error, func()) {
			c := make(chan struct{})
			return func() error { <-c; return nil }, func() { close(c) }
		}, nil},
		{"a read of a file that the runtime polls", unix.SYS_FUTEX, func(t *testing.T) (func() error, func()) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close(); w.Close() })
			return func() error { _, err := r.Read(make([]byte, 1)); return err }, func() { w.Write([]byte("w")) }
		}, nil},
		// signal(7) lists these among the calls that no flag makes go on.
		{"nanosleep, which is interrupted", unix.SYS_NANOSLEEP, func(*testing.T) (func() error, func()) {
			return func() error {
				_, _, e := syscall.Syscall(unix.SYS_NANOSLEEP, address(&unix.Timespec{Sec: 5}), 0, 0)
				return e
			}, func() {}
		}, unix.EINTR},
		{"epoll_pwait, which is interrupted", unix.SYS_EPOLL_PWAIT, func(t *testing.T) (func() error, func()) {
			fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			return func() error {
				_, _, e := syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), address(new(unix.EpollEvent)), 1, 5000, 0, 0)
				return e
			}, func() {}
		}, unix.EINTR},
	} {
		t.Run(test.name, func(t *testing.T) {
			block, wake := test.make(t)
			var tid atomic.Int32
			scope := make(chan *thread.Worn, 1)
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread()
				w := enter(t, person(t, 61001))
				defer leave(t, w)
				scope <- w
				tid.Store(int32(unix.Gettid()))
				err := block()
				// RawSyscall in who: nothing that could wait for a signal comes before the first question.
				isNow(t, "after "+test.name, person(t, 61002), token.AllCaps)
				if !errors.Is(err, test.want) {
					t.Errorf("%s: %v, want %v", test.name, err, test.want)
				}
			}()
			w := <-scope
			until(t, "the thread blocks", func() bool { return tid.Load() != 0 && blockedIn(int(tid.Load()), test.call) })
			change(t, w, person(t, 61002))
			if test.want == nil {
				until(t, "the blocked thread is changed", func() bool { return wearsUID(int(tid.Load()), 61002) })
				until(t, "the thread blocks again", func() bool { return blockedIn(int(tid.Load()), test.call) })
			}
			wake()
			<-done
		})
	}
}

func TestChangeSetsAllThatTheKernelDecidesBy(t *testing.T) {
	needFollowing(t)
	dir := testdir.Open(t, 0o777)
	secret := filepath.Join(dir, "secret") // nobody's but root's
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			onThread(t, s, func() {
				before, server := status(t), capabilities(t).Effective
				w := enter(t, person(t, 61001))
				for _, n := range []int{0, 1, 2, 32, 2000, 1, 65536, 0, 32} {
					groups := make([]uint32, n)
					for i := range groups {
						groups[i] = 100_000 + uint32(i)
					}
					tok := mustToken(t, 61100+uint32(n%500), 62100+uint32(n%500), groups...)
					change(t, w, tok)
					isNow(t, fmt.Sprintf("with %d groups", n), tok, server)
					if _, err := os.Open(secret); !errors.Is(err, os.ErrPermission) {
						t.Errorf("after a change to uid %d root's file could be opened: %v", tok.UID(), err)
					}
					file := filepath.Join(dir, fmt.Sprintf("%s-%d", strings.ReplaceAll(s.name, " ", "-"), n))
					os.Remove(file)
					var st unix.Stat_t
					if err := errors.Join(os.WriteFile(file, nil, 0o600), unix.Stat(file, &st)); err != nil || st.Uid != tok.UID() || st.Gid != tok.GID() {
						t.Errorf("a file made by uid %d, gid %d is of uid %d, gid %d (%v)", tok.UID(), tok.GID(), st.Uid, st.Gid, err)
					}
				}
				if now := wayBack(status(t)); now != wayBack(before) {
					t.Errorf("what is the way back was changed from\n%s\nto\n%s", wayBack(before), now)
				}
				leave(t, w)
				if after := status(t); after != before {
					t.Errorf("leaving did not restore the thread. Before:\n%s\nafter:\n%s", before, after)
				}
			})
		})
	}
}

// TestCapabilitiesComeAndGo has the capabilities of root clients.
func TestCapabilitiesComeAndGo(t *testing.T) {
	needFollowing(t)
	const dacOverride, dacReadSearch = 1 << 1, 1 << 2
	file := filepath.Join(testdir.Open(t, 0o777), "somebody's")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chown(file, 61009, 61009)); err != nil {
		t.Fatal(err)
	}
	steps := []*token.Token{
		person(t, 61001),
		rootWith(t, dacOverride|dacReadSearch),
		rootWith(t, switching|dacReadSearch),
		person(t, 61002),
		rootWith(t, token.AllCaps),
		rootWith(t, 0),
		rootWith(t, dacOverride),
		person(t, 61003),
	}
	for _, s := range servers[:3] { // those that are root
		// Leaving has to work from each of them.
		for last := range steps {
			t.Run(fmt.Sprint(s.name, ", left after ", last), func(t *testing.T) {
				onThread(t, s, func() {
					before, server := status(t), capabilities(t).Effective
					w := enter(t, person(t, 61000))
					for i, tok := range steps[:last+1] {
						change(t, w, tok)
						isNow(t, fmt.Sprintf("after change %d to %s", i, tok), tok, server)
						mayRead := tok.Capabilities().Effective&server&(dacOverride|dacReadSearch) != 0
						f, err := os.Open(file)
						if (err == nil) != mayRead {
							t.Errorf("after change %d to %s opening somebody's file gives %v, and it may: %v", i, tok, err, mayRead)
						}
						f.Close()
					}
					leave(t, w)
					if after := status(t); after != before {
						t.Errorf("leaving did not restore the thread. Before:\n%s\nafter:\n%s", before, after)
					}
				})
			})
		}
	}
}

func TestRefusedChangesLeaveTheThread(t *testing.T) {
	needFollowing(t)
	root, service := servers[0], servers[3]
	plain := server{"without privilege", func(t *testing.T) { unprivileged(t, 0) }}
	low := mustToken(t, 61002, 61002).Restrict(token.Statement{Level: token.Identification, Capabilities: token.AllCapabilities})
	for _, test := range []struct {
		server
		from, to *token.Token
		want     error
	}{
		{root, person(t, 61001), low, token.ErrLevel},
		{root, person(t, 61001), mustToken(t, 65534, 61002), token.ErrNotWearable},
		{root, person(t, 61001), mustToken(t, 61002, 61002, 65534), token.ErrNotWearable},
		{root, person(t, 61001), new(token.Token), token.ErrNotWearable},
		{root, person(t, 61001), nil, token.ErrNotWearable},
		{root, person(t, 61001), person(t, 61001), nil},
		{service, person(t, 61001), mustToken(t, 0, 0), thread.ErrPrivilege},
		{service, person(t, 61001), rootWith(t, 0), thread.ErrPrivilege},
		{plain, mustToken(t, 61010, 61010), person(t, 61001), thread.ErrPrivilege},
		{plain, mustToken(t, 61010, 61010), mustToken(t, 61010, 61010, 61011), thread.ErrPrivilege},
		{plain, mustToken(t, 61010, 61010), mustToken(t, 61010, 61010), nil},
	} {
		t.Run(fmt.Sprint(test.name, ", ", test.from, " to ", test.to), func(t *testing.T) {
			onThread(t, test.server, func() {
				before, server := status(t), capabilities(t).Effective
				w := enter(t, test.from)
				in := status(t)
				if err := w.Change(test.to); !errors.Is(err, test.want) {
					t.Errorf("changing gives %v, want %v", err, test.want)
				}
				arrive()
				if now := status(t); now != in {
					t.Errorf("the thread is not as before the change:\n%s\nbut\n%s", in, now)
				}
				if test.want != nil && w.Token() != test.from {
					t.Errorf("Token() is %s after a change that was refused", w.Token())
				}
				// It was refused, and the next is not.
				if test.name == root.name {
					change(t, w, person(t, 61003))
					isNow(t, "after a change that was not refused", person(t, 61003), server)
				}
				leave(t, w)
				if after := status(t); after != before {
					t.Errorf("leaving did not restore the thread:\n%s\nbut\n%s", before, after)
				}
			})
		})
	}
}

func TestOnlyWhatFollowsIsChanged(t *testing.T) {
	needFollowing(t)
	onThread(t, servers[0], func() {
		var never thread.Worn
		if err := never.Change(person(t, 61002)); !errors.Is(err, thread.ErrCannotFollow) {
			t.Errorf("changing what was never entered gives %v", err)
		}
		w := &thread.Worn{}
		if err := w.Enter(person(t, 61001)); err != nil {
			t.Error(err)
			return
		}
		if err := w.Change(person(t, 61002)); !errors.Is(err, thread.ErrCannotFollow) {
			t.Errorf("changing what was entered without Follow gives %v", err)
		}
		isNow(t, "entered without Follow", person(t, 61001), token.AllCaps)
		leave(t, w)

		w = enter(t, person(t, 61001))
		leave(t, w)
		before := status(t)
		if err := w.Change(person(t, 61002)); !errors.Is(err, thread.ErrCannotFollow) {
			t.Errorf("changing what was left gives %v", err)
		}
		arrive()
		if after := status(t); after != before {
			t.Errorf("a change after leaving changed the thread from\n%s\nto\n%s", before, after)
		}
		// It is ready for the next Enter.
		if err := w.Enter(person(t, 61003)); err != nil {
			t.Error(err)
			return
		}
		change(t, w, person(t, 61004))
		isNow(t, "entered again", person(t, 61004), token.AllCaps)
		leave(t, w)
	})
}

func TestTokenIsTheLatest(t *testing.T) {
	needFollowing(t)
	onThread(t, servers[0], func() {
		w := enter(t, person(t, 61001))
		for uid := range uint32(5) {
			tok := person(t, 61001+uid)
			change(t, w, tok)
			if thread.Current() != w || thread.Current().Token() != tok {
				t.Errorf("after the change to %s Current is %s", tok, thread.Current().Token())
			}
		}
		if ids := w.Server(); ids != (thread.IDs{}) {
			t.Errorf("the server is %v in the scope, want root", ids)
		}
		leave(t, w)
		if thread.Current() != nil || w.Token() != nil {
			t.Errorf("after leaving Current is %v and the token %v", thread.Current(), w.Token())
		}
	})
}

func TestLeavingRestoresAfterChanges(t *testing.T) {
	needFollowing(t)
	for _, s := range servers {
		for _, changes := range []int{0, 1, 2, 50} {
			for _, back := range []bool{false, true} {
				t.Run(fmt.Sprint(s.name, ", ", changes, " changes, back to the first: ", back), func(t *testing.T) {
					onThread(t, s, func() {
						before := status(t)
						w := enter(t, person(t, 61001))
						for i := range changes {
							change(t, w, person(t, 61002+uint32(i)))
						}
						if back {
							change(t, w, person(t, 61001))
						}
						leave(t, w)
						if after := status(t); after != before {
							t.Errorf("leaving did not restore the thread. Before:\n%s\nafter:\n%s", before, after)
						}
					})
				})
			}
		}
	}
}

func TestPanicLeavesAFollowedScope(t *testing.T) {
	needFollowing(t)
	onThread(t, servers[0], func() {
		before := status(t)
		func() {
			w := enter(t, person(t, 61001))
			defer func() {
				if recover() == nil {
					t.Error("it did not panic")
				}
			}()
			defer leave(t, w)
			change(t, w, person(t, 61002))
			var none *int
			*none = 1 // a panic that comes from a signal
		}()
		if after := status(t); after != before {
			t.Errorf("a panic did not restore the thread. Before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// TestLeavingWhileChangesRain enters and leaves the same scope while another goroutine changes it without a break.
func TestLeavingWhileChangesRain(t *testing.T) {
	needFollowing(t)
	for _, s := range []server{servers[0], servers[4]} {
		t.Run(s.name, func(t *testing.T) {
			onThread(t, s, func() {
				before, server := status(t), fmt.Sprint(who())
				for range 150 {
					w := enter(t, person(t, 61001))
					begun, ended := make(chan struct{}), make(chan struct{})
					go func() {
						defer close(ended)
						for i := uint32(0); ; i++ {
							if err := w.Change(person(t, 61100+i%100)); err != nil {
								if !errors.Is(err, thread.ErrCannotFollow) {
									t.Error(err)
								}
								return
							}
							if i == 0 {
								close(begun)
							}
						}
					}()
					<-begun
					leave(t, w)
					if now := fmt.Sprint(who()); now != server {
						t.Errorf("right after leaving the thread is %s, want %s", now, server)
					}
					<-ended
				}
				if after := status(t); after != before {
					t.Errorf("leaving did not restore the thread. Before:\n%s\nafter:\n%s", before, after)
				}
			})
		})
	}
}

// TestEnteringWhileChangesRain has changes begin as soon as they may: while the thread is half what is entered.
func TestEnteringWhileChangesRain(t *testing.T) {
	needFollowing(t)
	onThread(t, servers[0], func() {
		before := status(t)
		w, to := &thread.Worn{Follow: true}, person(t, 61100)
		for range 200 {
			begun, ended := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				for i := 0; ; i++ {
					err := w.Change(to)
					if i == 0 {
						close(begun)
					}
					if err == nil {
						return
					} else if !errors.Is(err, thread.ErrCannotFollow) {
						t.Error(err)
						return
					}
				}
			}()
			<-begun
			if err := w.Enter(person(t, 61001)); err != nil {
				t.Error(err)
				return
			}
			<-ended
			arrive()
			isNow(t, "after a change while entering", to, token.AllCaps)
			change(t, w, person(t, 61002))
			isNow(t, "after the next change", person(t, 61002), token.AllCaps)
			leave(t, w)
		}
		if after := status(t); after != before {
			t.Errorf("leaving did not restore the thread. Before:\n%s\nafter:\n%s", before, after)
		}
	})
}
