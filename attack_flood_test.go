package guise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// flippers are who the fast client is in turn. Uid, gid and the one group are the same number, so a mixture of two shows.
var flippers = []uint32{61001, 61002, 61003}

// This client makes a token socket of each, and announces them as fast as it can, until its input ends; the first at last.
var _ = addRole("flipper", func() {
	c := &rawClient{}
	sockets := make([]int, len(flippers))
	is := func(id uint32) {
		must(syscall.Setresuid(-1, 0, -1))
		must(syscall.Setgroups([]int{int(id)}))
		must(syscall.Setresgid(-1, int(id), -1))
		must(syscall.Setresuid(-1, int(id), -1))
	}
	for i, id := range flippers {
		is(id)
		sockets[i] = c.token()
	}
	is(flippers[0])
	c.pipe = rawConnect(os.Getenv("GUISE_TEST_PATH"))
	c.near, c.far = rawPair(unix.SOCK_SEQPACKET)
	c.open()
	must(syscall.Setresuid(-1, 0, -1))
	var stop atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	written := uint64(1)
	for n := uint64(1); ; n++ {
		last := stop.Load()
		i := int(n*7+n/3) % len(flippers)
		if last {
			i = 0
		}
		claim := c.claimOf(ids{flippers[i], flippers[i]})
		if n%64 != 0 && !last {
			must(c.sayAs(claim, rawNow(n, 0), sockets[i]))
			continue
		}
		must(c.announceAt(n, written, sockets[i], claim))
		c.write("2")
		written++
		if last {
			break
		}
	}
	fmt.Println("stopped")
	c.hear()
})

// credentialLines returns what the kernel shows of the calling thread's ids, groups and capabilities, of one moment.
func credentialLines() (lines []string) {
	for line := range strings.Lines(string(must1(os.ReadFile("/proc/thread-self/status")))) {
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb":
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	return lines
}

// oneFlipper returns an error unless the calling thread is one of the flippers, in all that it shows and does.
func oneFlipper(file string) error {
	shown := credentialLines()
	ok := slices.ContainsFunc(flippers, func(id uint32) bool {
		return shown[0] == fmt.Sprintf("Uid: 0 %d 0 %d", id, id) && shown[1] == fmt.Sprintf("Gid: 0 %d 0 %d", id, id) && shown[2] == fmt.Sprint("Groups: ", id)
	})
	if !ok {
		return fmt.Errorf("the thread shows %q", shown)
	}
	if sets := shown[5]; sets != "CapEff: 0000000000000000" {
		return fmt.Errorf("the thread has capabilities: %s", sets)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var made syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &made); err != nil {
		return err
	}
	if made.Uid != made.Gid || !slices.Contains(flippers, made.Uid) {
		return fmt.Errorf("a file belongs to uid %d, gid %d", made.Uid, made.Gid)
	}
	return nil
}

func inGroup(g *sync.WaitGroup, f func()) {
	g.Add(1)
	go func() { defer g.Done(); f() }()
}

// TestAttackByAClientThatChangesAsFastAsItCan has scopes come and go, nest, and start programs and goroutines meanwhile.
func TestAttackByAClientThatChangesAsFastAsItCan(t *testing.T) {
	needRoot(t, "the client acts as others")
	dir := testdir.Open(t, 0o777)
	l := listenAt(t, &ListenConfig{KeepPrograms: true})
	fixed := must1(token.FromIDs(61009, 61009, []uint32{61009}))
	leftover.ByThis(t, func() {
		p := startRaw(t, "flipper", asRoot(), []string{"GUISE_TEST_PATH=" + l.Addr().String()})
		server := acceptFrom(t, l)
		defer server.Close()
		must1(server.Read(make([]byte, 1)))
		var readers sync.WaitGroup
		inGroup(&readers, func() { // what goes with a write waits until it is read
			for b := make([]byte, 64); ; {
				if n, err := server.Read(b); n == 0 || err != nil {
					return
				}
			}
		})
		const loops, rounds = 3, 40
		var workers sync.WaitGroup
		var programs atomic.Int32
		for loop := range loops {
			inGroup(&workers, func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				outside := credentialLines()
				for round := range rounds {
					name := func(what string) string { return filepath.Join(dir, fmt.Sprint(loop, "-", round, "-", what)) }
					err := server.RunAsClient(func(s *Scope) error {
						if err := oneFlipper(name("entered")); err != nil {
							return err
						}
						err := server.RunAsClient(func(*Scope) error { return oneFlipper(name("nested")) })
						if err != nil {
							return err
						}
						err = RunAs(fixed, func(*Scope) error {
							for range 5 {
								if now := ownIDs(); now != (ids{61009, 61009}) {
									return fmt.Errorf("in a scope that is fixed inside, the thread is %v", now)
								}
							}
							return server.RunAsClient(func(*Scope) error { return oneFlipper(name("nested deep")) })
						})
						if err != nil {
							return err
						}
						done := make(chan error, 1)
						s.Go(func() error { done <- oneFlipper(name("goroutine")); return nil })
						if err := <-done; err != nil {
							return fmt.Errorf("a goroutine of the scope: %w", err)
						}
						if round%8 == loop {
							out, err := s.Command("/bin/sh", "-c", "id -u; id -g; id -G; grep CapPrm /proc/self/status").CombinedOutput()
							said := strings.Fields(string(out))
							switch {
							case errors.Is(err, ErrContextChanged):
							case err != nil || len(said) != 5 || said[0] != said[1] || said[0] != said[2] || !slices.Contains([]string{"61001", "61002", "61003"}, said[0]) || said[4] != "0000000000000000":
								return fmt.Errorf("a program says %q, %v", out, err)
							default:
								programs.Add(1)
							}
						}
						return oneFlipper(name("leaving"))
					})
					if err != nil {
						t.Errorf("loop %d, round %d: %v", loop, round, err)
						return
					}
					if now := credentialLines(); !slices.Equal(now, outside) {
						t.Errorf("loop %d, after round %d the thread shows %q, and was %q", loop, round, now, outside)
						return
					}
				}
			})
		}
		workers.Wait()
		if programs.Load() == 0 {
			t.Log("each program was made before a change and started after it")
		}
		in := entersScope(t, server)
		p.stdin.Close()
		if line := p.out.line(); line != "stopped" {
			t.Errorf("the client says %q", line)
		}
		in.becomes("after the last change", ids{61001, 61001}, ids{61001, 61001}, ids{61002, 61002}, ids{61003, 61003})
		in.leave()
		server.Close()
		readers.Wait()
		p.end()
	})
}

// This process changes its ids, there and back, until its input ends. It says so after many.
var _ = addRole("flood", func() {
	var stop atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	const unchanged = ^uintptr(0)
	runtime.LockOSThread()
	for n := 1; !stop.Load(); n++ {
		for _, uid := range []uintptr{61005, 0} {
			if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, uid, unchanged); e != 0 {
				panic(e)
			}
		}
		if n == 2000 {
			fmt.Println("flooded")
		}
	}
})

// speaks is a client of this process's, on a thread of its own, whose scope the server is in.
type speaks struct {
	orders chan func()
	server *Conn
	in     *scopeIn
}

func (s *speaks) do(f func()) {
	done := make(chan struct{})
	s.orders <- func() { defer close(done); f() }
	<-done
}

// is has the client's thread alone change its effective uid.
func (s *speaks) is(uid uint32) {
	s.do(func() {
		for _, to := range []uint32{0, uid} {
			const unchanged = ^uintptr(0)
			if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(to), unchanged); e != 0 {
				panic(e)
			}
		}
	})
}

func startSpeaking(t *testing.T) *speaks {
	t.Helper()
	l := listenAt(t, nil)
	s := &speaks{orders: make(chan func())}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		for f := range s.orders {
			f()
		}
	}()
	t.Cleanup(func() { close(s.orders); <-ended })
	s.is(61001)
	var near *Conn
	s.do(func() {
		near = must1(Dial(l.Addr().String(), &QoS{Tracking: Dynamic}))
		must1(near.Write([]byte("1")))
	})
	t.Cleanup(func() { near.Close() })
	s.server = acceptFrom(t, l)
	must1(s.server.Read(make([]byte, 1)))
	s.in = entersScope(t, s.server)
	return s
}

// queued reports whether this process's listener to process events has any. ownProcess.mu is held, so nobody takes them.
func queued(t *testing.T) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(ownProcess.listener.Descriptor()), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 0); err != nil {
		t.Error(err)
	}
	return fds[0].Revents != 0
}

// TestAttackByAFloodOfProcessEvents has others change their ids all the time: it must not wake who listens for the client's own.
func TestAttackByAFloodOfProcessEvents(t *testing.T) {
	needRoot(t, "others change their ids")
	s := startSpeaking(t)
	s.in.is("at first", ids{61001, 0})
	ownProcess.mu.Lock()
	locked := true
	unlock := func() {
		if locked {
			locked = false
			ownProcess.mu.Unlock()
		}
	}
	defer unlock()
	if ownProcess.listener == nil {
		t.Skip("there is no process connector here: nobody hears of events")
	}
	for queued(t) { // of what has been
		must1(ownProcess.listener.Take(func(int32) {}))
	}
	p := startRaw(t, "flood", asRoot(), nil)
	if line := p.out.line(); line != "flooded" {
		t.Fatalf("the flood says %q", line)
	}
	if queued(t) {
		t.Error("another process's changes are queued for this one's listener")
	}
	// Those of this process's own scopes are not the client's either.
	bob := must1(token.FromIDs(61002, 61002, nil))
	scopes := make(chan error)
	for range 4 {
		go func() {
			for range 100 {
				if err := RunAs(bob, func(*Scope) error { return nil }); err != nil {
					scopes <- err
					return
				}
			}
			scopes <- nil
		}()
	}
	for range 4 {
		if err := <-scopes; err != nil {
			t.Error(err)
		}
	}
	if queued(t) {
		t.Error("changes of scopes' threads are queued for the listener")
	}
	s.is(61002)
	if !queued(t) {
		t.Error("a change of the client's own thread is not queued for the listener")
	}
	unlock()
	s.in.becomes("after the client's change", ids{61002, 0}, ids{61001, 0}, aMachine)
	for i := range uint32(20) { // while the flood goes on, and scopes come and go
		go func() { scopes <- RunAs(bob, func(*Scope) error { return nil }) }()
		s.is(61003 + i%2)
		s.in.becomes(fmt.Sprintf("change %d in a flood of others'", i), ids{61003 + i%2, 0}, ids{61002, 0}, ids{61003, 0}, ids{61004, 0}, aMachine)
		if err := <-scopes; err != nil {
			t.Error(err)
		}
	}
	s.in.leave()
	p.end()
}
