package guise_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/token"
)

// TestScopeFollowsWhateverItsThreadDoes has a client become another while its server's thread is busy.
func TestScopeFollowsWhateverItsThreadDoes(t *testing.T) {
	needRoot(t)
	alice, bob := identity(t, 61001, 61001, 61101), identity(t, 61002, 61002, 61102, 61103)
	doings := []struct {
		name string
		do   func(t *testing.T, dir string, change func())
	}{
		{"computing", func(t *testing.T, _ string, change func()) {
			change()
			until(t, "a thread that computes has to become uid 61002", func() (string, bool) {
				uid, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
				return fmt.Sprint("uid ", uid), uint32(uid) == bob.UID()
			})
			is(t, "once it has another uid", bob)
		}},
		{"blocked in a read", func(t *testing.T, _ string, change func()) {
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			defer unix.Close(p[0])
			defer unix.Close(p[1])
			status := fmt.Sprintf("/proc/self/task/%d/status", unix.Gettid())
			go func() {
				// It may not be in the read yet. It will be before it has anything to read.
				change()
				until(t, "a thread that is blocked in read(2) has to become uid 61002", func() (string, bool) {
					b, err := os.ReadFile(status)
					_, ids, _ := strings.Cut(string(b), "\nUid:\t")
					ids, _, _ = strings.Cut(ids, "\n")
					return fmt.Sprint(ids, err), strings.HasPrefix(ids, "0\t61002\t")
				})
				unix.Write(p[1], []byte("x"))
			}()
			n, _, e := unix.Syscall(unix.SYS_READ, uintptr(p[0]), uintptr(firstByte()), 1)
			if n != 1 || e != 0 {
				t.Errorf("the read that the client changed in gives %d, %v", int(n), e)
			}
			is(t, "after the read", bob)
		}},
		{"working on files", func(t *testing.T, dir string, change func()) {
			seen := map[uint32]int{}
			if err := opened(privateOf(dir, alice)); err != nil {
				t.Errorf("alice's own file, as alice: %v", err)
			}
			if err := opened(privateOf(dir, bob)); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("bob's private file, as alice: %v", err)
			}
			changed := make(chan struct{})
			go func() { defer close(changed); change() }()
			defer func() { <-changed }()
			n := 0
			until(t, "the files that a thread makes have to become bob's", func() (string, bool) {
				n++
				owner, err := makes(filepath.Join(dir, fmt.Sprint("made-", n)))
				if err != nil {
					t.Error(err)
					return "", true
				}
				seen[owner.Uid]++
				// The client changes its gid before its uid, and may be seen in between.
				between := owner.Uid == alice.UID() && owner.Gid == bob.GID()
				if !between && (owner.Uid != owner.Gid || owner.Uid != alice.UID() && owner.Uid != bob.UID()) {
					t.Errorf("a file was made by uid %d, gid %d", owner.Uid, owner.Gid)
				}
				return fmt.Sprint("files by uid: ", seen), owner.Uid == bob.UID()
			})
			if err := opened(privateOf(dir, bob)); err != nil {
				t.Errorf("bob's own file, as bob: %v", err)
			}
			if err := opened(privateOf(dir, alice)); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("alice's private file, as bob: %v", err)
			}
		}},
	}
	for _, message := range []bool{false, true} {
		for _, stated := range []guise.Tracking{guise.Dynamic, guise.TrackingUnstated} {
			for _, doing := range doings {
				t.Run(fmt.Sprintf("message=%v/client states %v/%s", message, stated, doing.name), func(t *testing.T) {
					l := listenOn(t, &guise.ListenConfig{Message: message, Tracking: guise.Dynamic})
					client := play(t)
					client.become(alice)
					_, server := client.opens(l, &guise.QoS{Tracking: stated})
					dir := files(t, alice, bob)
					inside(t, server, func(*guise.Scope) {
						is(t, "at first", alice)
						doing.do(t, dir, func() { client.become(bob) })
					})
				})
			}
		}
	}
}

// makes makes a file and returns what the kernel says of it.
func makes(path string) (owner syscall.Stat_t, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return owner, err
	}
	defer f.Close()
	return owner, syscall.Fstat(int(f.Fd()), &owner)
}

// TestScopeFollowsOneChangeAfterTheOther has a thread become many in turn, some of them again.
func TestScopeFollowsOneChangeAfterTheOther(t *testing.T) {
	needRoot(t)
	steps := []*token.Token{
		identity(t, 61001, 61001), identity(t, 61002, 61001), identity(t, 61002, 61002), identity(t, 61001, 61002, 61101),
		identity(t, 61002, 61001, 61101, 61102, 61103), identity(t, 61001, 61001), identity(t, 0, 0), identity(t, 61001, 0), identity(t, 61001, 61001),
	}
	l := listenOn(t, nil)
	client := play(t)
	client.become(steps[0])
	_, server := client.opens(l, dynamic)
	inside(t, server, func(s *guise.Scope) {
		for i, to := range steps[1:] {
			client.become(to)
			if !becomes(t, fmt.Sprintf("change %d:", i+1), to) {
				return
			}
			if got := s.Token(); !got.SameIDs(to) {
				t.Errorf("change %d: Scope.Token is %s, want %s", i+1, got, to)
			}
			if caps := effective(t); (caps != 0) != (to.UID() == 0) {
				t.Errorf("change %d: as uid %d the thread has the capabilities %v", i+1, to.UID(), caps)
			}
		}
	})
}

func effective(t *testing.T) token.CapSet {
	t.Helper()
	sets, e := capability.Get()
	if e != 0 {
		t.Error(e)
	}
	return sets.Effective
}

// TestScopeFollowsARootClientsCapabilities has a root client give one up, together with a change of its gid, which the kernel tells of.
func TestScopeFollowsARootClientsCapabilities(t *testing.T) {
	needRoot(t)
	const dropped = 1 << 1 // CAP_DAC_OVERRIDE
	dir := files(t, identity(t, 61009, 61009))
	private := privateOf(dir, identity(t, 61009, 61009))
	l := listenOn(t, nil)
	client := play(t)
	_, server := client.opens(l, dynamic)
	inside(t, server, func(*guise.Scope) {
		if effective(t)&dropped == 0 {
			t.Error("the scope of a root client with all capabilities has not got CAP_DAC_OVERRIDE")
		}
		if err := opened(private); err != nil {
			t.Errorf("another's private file, as a root client that has CAP_DAC_OVERRIDE: %v", err)
		}
		client.do(func() {
			sets, e := capability.Get()
			if e != 0 {
				t.Error(e)
			}
			sets.Effective &^= dropped | 1<<2 // and CAP_DAC_READ_SEARCH
			if e := sets.Set(); e != 0 {
				t.Error(e)
			}
			const unchanged = ^uintptr(0)
			syscall.RawSyscall(unix.SYS_SETRESGID, unchanged, 61003, unchanged)
		})
		becomes(t, "after its client gave a capability up,", identity(t, 0, 61003, server0Groups(t)...))
		if effective(t)&dropped != 0 {
			t.Error("the thread keeps a capability that its client has given up")
		}
		if err := opened(private); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("another's private file, as a root client that has given CAP_DAC_OVERRIDE up: %v", err)
		}
	})
	if effective(t)&dropped == 0 {
		t.Error("the server's own capability has not come back")
	}
}

// server0Groups are this process's groups, which players begin with.
func server0Groups(t *testing.T) []uint32 {
	t.Helper()
	self, err := token.Self()
	if err != nil {
		t.Fatal(err)
	}
	return self.Groups()
}

func TestScopeSaysThatItsClientHasChanged(t *testing.T) {
	needRoot(t)
	// A uid alone: a uid and a gid are changes one after the other.
	alice, bob, carol := identity(t, 61001, 61001), identity(t, 61002, 61001), identity(t, 61003, 61001)
	l := listenOn(t, nil)
	client := play(t)
	client.become(alice)
	_, server := client.opens(l, dynamic)
	_, unchanging := client.opens(l, &guise.QoS{Tracking: guise.Static})
	never := map[string]<-chan struct{}{}
	fixed := enters(t, unchanging)
	never["a static client's scope"] = fixed.scope.Changed()
	if err := guise.RunAs(alice, func(s *guise.Scope) error {
		never["a scope of RunAs"] = s.Changed()
		inside(t, server, func(s *guise.Scope) {
			var waiters []chan string
			wait := func() {
				c, changed := make(chan string, 1), s.Changed()
				waiters = append(waiters, c)
				go func() { <-changed; c <- shows(s.Token()) }()
			}
			for _, to := range []*token.Token{bob, carol, alice} {
				first := s.Changed()
				select {
				case <-first:
					t.Errorf("Changed is closed before the client has become %s", to)
				default:
				}
				waiters = nil
				for range 3 {
					wait()
				}
				client.become(to)
				for _, c := range waiters {
					if got := inTime(t, "Scope.Changed has to be closed when the client becomes "+shows(to), c); got != shows(to) {
						t.Errorf("when Changed is closed Scope.Token is %q, want %q", got, shows(to))
					}
				}
				inTime(t, "a channel that was asked for before the others has to be closed too", first)
				is(t, "once Changed is closed", to)
				if s.Changed() == first {
					t.Error("Changed gives the same channel again, which is closed")
				}
			}
		})
		is(t, "after its client's scope in it,", alice)
		return nil
	}); err != nil {
		t.Error(err)
	}
	for what, c := range never {
		select {
		case <-c:
			t.Errorf("Changed is closed in %s", what)
		default:
		}
	}
	fixed.stays("with static tracking", alice)
}

func TestGoroutinesOfAScopeFollow(t *testing.T) {
	needRoot(t)
	alice, bob, carol := identity(t, 61001, 61001), identity(t, 61002, 61002, 61102), identity(t, 61003, 61003)
	l := listenOn(t, nil)
	client := play(t)
	client.become(alice)
	_, server := client.opens(l, dynamic)
	const many = 5
	inside(t, server, func(s *guise.Scope) {
		ready := make(chan struct{}, many)
		for range many {
			s.Go(func() error {
				is(t, "a goroutine of the scope begins:", alice)
				ready <- struct{}{}
				becomes(t, "a goroutine of the scope:", bob)
				ready <- struct{}{}
				becomes(t, "a goroutine of the scope, again:", carol)
				return nil
			})
		}
		for range many {
			inTime(t, "the scope's goroutines begin", ready)
		}
		client.become(bob)
		for range many {
			inTime(t, "all goroutines of the scope follow", ready)
		}
		becomes(t, "the scope's own thread:", bob)
		late := make(chan struct{})
		s.Go(func() error {
			is(t, "a goroutine that is started after the change", bob)
			close(late)
			becomes(t, "a goroutine that was started after the change:", carol)
			return nil
		})
		inTime(t, "a goroutine that is started after the change begins", late)
		client.become(carol)
	})
}

// TestNestedScopesKeepTheirOwn has the client of an outer scope change while the thread wears something else.
func TestNestedScopesKeepTheirOwn(t *testing.T) {
	needRoot(t)
	alice, bob, carol, dave := identity(t, 61001, 61001, 61101), identity(t, 61002, 61002, 61102), identity(t, 61003, 61003, 61103), identity(t, 61004, 61004)
	for _, test := range []struct {
		name  string
		inner func(t *testing.T, l *guise.Listener, changeOuter func())
	}{
		{"RunAs", func(t *testing.T, _ *guise.Listener, changeOuter func()) {
			err := guise.RunAs(carol, func(*guise.Scope) error {
				changeOuter()
				stays(t, "in a scope of RunAs inside it", carol)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}},
		{"RunAs in RunAs", func(t *testing.T, _ *guise.Listener, changeOuter func()) {
			err := guise.RunAs(dave, func(*guise.Scope) error {
				err := guise.RunAs(carol, func(*guise.Scope) error {
					changeOuter()
					stays(t, "two scopes deep", carol)
					return nil
				})
				is(t, "back in the middle scope", dave)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}},
		{"RunAsClient of another", func(t *testing.T, l *guise.Listener, changeOuter func()) {
			other := play(t)
			other.become(carol)
			_, server := other.opens(l, dynamic)
			inside(t, server, func(*guise.Scope) {
				is(t, "as another client", carol)
				changeOuter()
				stays(t, "as another client", carol)
				other.become(dave)
				becomes(t, "as another client, who has changed,", dave)
			})
		}},
		{"a scope's goroutine", func(t *testing.T, _ *guise.Listener, changeOuter func()) {
			err := guise.RunAs(carol, func(s *guise.Scope) error {
				s.Go(func() error {
					changeOuter()
					stays(t, "a goroutine of the inner scope", carol)
					return nil
				})
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := listenOn(t, nil)
			client := play(t)
			client.become(alice)
			_, server := client.opens(l, dynamic)
			inside(t, server, func(s *guise.Scope) {
				test.inner(t, l, func() {
					changed := s.Changed()
					client.become(bob)
					inTime(t, "the outer scope hears of its client's change", changed)
				})
				is(t, "as soon as the inner scope is left", bob)
				client.become(alice)
				becomes(t, "after the inner scope", alice)
			})
		})
	}
}

// TestLeavingAScopeThatFollowedRestoresTheServer looks at the thread after scopes whose client changed, however they end.
func TestLeavingAScopeThatFollowedRestoresTheServer(t *testing.T) {
	needRoot(t)
	alice, bob := identity(t, 61001, 61001, 61101), identity(t, 61002, 61002, 61102)
	owner := identity(t, 0, 0)
	dir := files(t, owner)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		name string
		end  func()
	}{{"return", func() {}}, {"panic", func() { panic("on purpose") }}, {"Goexit", runtime.Goexit}} {
		t.Run(end.name, func(t *testing.T) {
			l := listenOn(t, nil)
			client := play(t)
			client.become(alice)
			_, server := client.opens(l, dynamic)
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				before, caps := threadIDs(), effective(t)
				defer func() {
					_ = recover()
					if after := threadIDs(); after != before {
						t.Errorf("after the scope the thread is %s, before it was %s", after, before)
					}
					if after := effective(t); after != caps {
						t.Errorf("after the scope the thread has the capabilities %v, before it had %v", after, caps)
					}
					if err := opened(privateOf(dir, owner)); err != nil {
						t.Errorf("the server's own file, after the scope: %v", err)
					}
				}()
				server.RunAsClient(func(*guise.Scope) error {
					client.become(bob)
					becomes(t, "in the scope", bob)
					client.become(alice) // on its way when the scope is left
					end.end()
					return nil
				})
			}()
			<-done
		})
	}
}

// TestScopeFollowsAProcess has the client be a process of its own.
func TestScopeFollowsAProcess(t *testing.T) {
	needRoot(t)
	for _, how := range []string{"all threads", "one thread"} {
		t.Run(how, func(t *testing.T) {
			l := listenOn(t, nil)
			client := startClient(t, l)
			server := accept(t, l)
			inside(t, server, func(*guise.Scope) {
				is(t, "at first", identity(t, 61001, 61001, 61101))
				for _, uid := range []uint32{61002, 61001, 61002} { // as seteuid(2) does, and back
					client.tell(fmt.Sprint(how, " ", uid))
					if how == "one thread" {
						client.tell("write") // no other thread can show it, without privileges
					}
					becomes(t, "a client without privileges changed:", identity(t, uid, 61001, 61101))
				}
			})
			server.Close()
			client.end()
		})
	}
}
