package procevents

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/without"
)

// The runtime never ends the first thread, which tests must not spoil.
func init() { runtime.LockOSThread() }

// The role that the test binary plays in place of running tests.
const role = "GUISE_TEST_PROCEVENTS"

// What a child that plays a role says, and how many changes one makes.
const (
	isThere  = "available\n"
	isSilent = "silent: "
	flood    = 3000
)

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		os.Exit(leftover.Main(m))
	case "ask":
		err := Available()
		switch {
		case err == nil:
			fmt.Print(isThere)
		case errors.Is(err, ErrSilent):
			fmt.Println(isSilent, err)
		default:
			fmt.Println("error:", err)
		}
	case "change":
		bufio.NewReader(os.Stdin).ReadString('\n')
		for range flood / 2 {
			if err := thereAndBack(); err != nil {
				fmt.Println("error:", err)
				return
			}
		}
		fmt.Println("changed")
	}
}

const (
	unchanged = ^uintptr(0)
	other     = 61001
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("changing ids takes root")
	}
}

func call(name string, number, a, b, c uintptr) error {
	if _, _, e := syscall.RawSyscall(number, a, b, c); e != 0 {
		return fmt.Errorf("%s: %w", name, e)
	}
	return nil
}

// thereAndBack makes two changes of the calling thread's ids.
func thereAndBack() error {
	if err := call("setresuid", unix.SYS_SETRESUID, unchanged, other, unchanged); err != nil {
		return err
	}
	return call("setresuid", unix.SYS_SETRESUID, unchanged, 0, unchanged)
}

// changeIDs is thereAndBack on any goroutine of a test.
func changeIDs(t *testing.T) {
	t.Helper()
	if err := thereAndBack(); err != nil {
		t.Error(err)
	}
}

// onThread calls f on a thread that nothing else runs on, and returns its number.
func onThread(f func()) (tid int32) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tid = int32(unix.Gettid())
		f()
	}()
	<-done
	return tid
}

func mustListen(t *testing.T, process int) *Listener {
	t.Helper()
	l, err := listenTo(process)
	if err != nil {
		if why := missing(); why != "" {
			t.Skipf("%s: %v", why, err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// missing says why the process connector need not work here, and nothing if it has to.
func missing() string {
	var major, minor int
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	fmt.Sscanf(string(release), "%d.%d", &major, &minor)
	if major < 6 || major == 6 && minor < 6 {
		return "it takes Linux 6.6"
	}
	// The initial namespaces have these numbers on every machine.
	for name, number := range map[string]string{"pid": "pid:[4026531836]", "user": "user:[4026531837]"} {
		if is, err := os.Readlink("/proc/self/ns/" + name); err != nil || is != number {
			return "this is not the initial " + name + " namespace"
		}
	}
	if b, err := os.ReadFile("/proc/net/netlink"); err != nil || !strings.Contains(string(b), " 11  0 ") {
		return "the kernel has no connector in this network namespace"
	}
	return ""
}

func readable(t *testing.T, l *Listener) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(l.Descriptor()), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, 0); err != nil {
		t.Error(err)
	}
	return p[0].Revents != 0
}

func take(t *testing.T, l *Listener) (tids []int32, lost bool) {
	t.Helper()
	lost, err := l.Take(func(tid int32) { tids = append(tids, tid) })
	if err != nil {
		t.Error(err)
	}
	return tids, lost
}

func TestChangesOfOwnThreadsAreHeard(t *testing.T) {
	needRoot(t)
	tests := []struct {
		call   string
		change func() error
		events int
	}{
		{"setresuid", thereAndBack, 2},
		{"setresgid", func() error {
			return errors.Join(call("setresgid", unix.SYS_SETRESGID, unchanged, other, unchanged),
				call("setresgid", unix.SYS_SETRESGID, unchanged, 0, unchanged))
		}, 2},
		{"setfsgid", func() error {
			return errors.Join(call("setfsgid", unix.SYS_SETFSGID, other, 0, 0), call("setfsgid", unix.SYS_SETFSGID, 0, 0, 0))
		}, 2},
		{"setresuid to nothing else", func() error {
			return call("setresuid", unix.SYS_SETRESUID, unchanged, unchanged, unchanged)
		}, 0},
		{"setresuid to the same", func() error { return call("setresuid", unix.SYS_SETRESUID, 0, 0, 0) }, 0},
		{"a new name", rename, 0},
	}
	for _, test := range tests {
		t.Run(test.call, func(t *testing.T) {
			l := mustListen(t, os.Getpid())
			var err error
			tid := onThread(func() { err = test.change() })
			if err != nil {
				t.Fatal(err)
			}
			if got, want := readable(t, l), test.events > 0; got != want {
				t.Errorf("the descriptor is readable: %t, want %t", got, want)
			}
			tids, lost := take(t, l)
			if want := slices.Repeat([]int32{tid}, test.events); !slices.Equal(tids, want) || lost {
				t.Errorf("heard of threads %v, lost %t, want %v", tids, lost, want)
			}
			if readable(t, l) {
				t.Error("the descriptor stays readable after everything was taken")
			}
		})
	}
}

// child is the test binary in a role.
func child(as string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", role+"="+as)
	return cmd
}

func TestOtherProcessesAreNotHeard(t *testing.T) {
	needRoot(t)
	own := mustListen(t, os.Getpid())

	cmd := child("change")
	begin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var says strings.Builder
	cmd.Stdout = &says
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs := mustListen(t, cmd.Process.Pid)
	io.WriteString(begin, "\n")
	if err := cmd.Wait(); err != nil || says.String() != "changed\n" {
		t.Fatalf("the other process: error %v, says %q", err, says.String())
	}

	if heard, lost := take(t, theirs); len(heard) == 0 && !lost {
		t.Error("a listener of the other process heard nothing")
	}
	if readable(t, own) {
		t.Error("the descriptor became readable")
	}
	if heard, lost := take(t, own); len(heard) != 0 || lost {
		t.Errorf("heard of threads %v, lost %t", heard, lost)
	}
	// The queue has not been filled.
	tid := onThread(func() { changeIDs(t) })
	if heard, lost := take(t, own); !slices.Equal(heard, []int32{tid, tid}) || lost {
		t.Errorf("a change after the others' flood: heard of threads %v, lost %t", heard, lost)
	}
}

func TestOthersSubscribingIsNotHeard(t *testing.T) {
	l := mustListen(t, os.Getpid())
	// This one gets the answers that go to everybody.
	if err := l.send(request(subscribe, allEvents, 0)); err != nil {
		t.Fatal(err)
	}
	mustListen(t, os.Getpid())
	if readable(t, l) {
		t.Error("the answer to another's request made the descriptor readable")
	}
}

// queue is how many bytes the socket's queue takes to hold more than Take takes at once.
const queue = 1 << 20

func TestOverflowIsReported(t *testing.T) {
	needRoot(t)
	l := mustListen(t, os.Getpid())
	if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue); err != nil {
		t.Fatalf("setting SO_RCVBUFFORCE: %v", err)
	}
	var heard []int32
	var lost bool
	onThread(func() {
		for range 5000 {
			changeIDs(t)
		}
		heard, lost = take(t, l)
		if len(heard) == 0 || len(heard) > atOnce || !lost || !readable(t, l) {
			t.Errorf("took %d changes of a queue that overflowed, lost %t; want at most %d, more left, and true", len(heard), lost, atOnce)
		}
		// The kernel drops this thread's and does not tell again.
		dropped := onThread(func() { changeIDs(t) })
		for readable(t, l) && !t.Failed() {
			if heard, lost = take(t, l); !lost {
				t.Error("lost is false before the queue was empty")
			}
			if slices.Contains(heard, dropped) {
				t.Error("the queue had room before it was empty: this test is of nothing then")
			}
		}
	})

	heard, lost = take(t, l)
	if len(heard) != 0 || lost {
		t.Errorf("after everything was taken: heard of threads %v, lost %t", heard, lost)
	}
	tid := onThread(func() { changeIDs(t) })
	if heard, lost = take(t, l); !slices.Equal(heard, []int32{tid, tid}) || lost {
		t.Errorf("a change after the overflow: heard of threads %v, lost %t", heard, lost)
	}
}

func TestForgedMessagesAreIgnored(t *testing.T) {
	needRoot(t)
	l := mustListen(t, os.Getpid())
	name, err := unix.Getsockname(l.fd)
	if err != nil {
		t.Fatal(err)
	}
	forger, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(forger)
	send := func(b []byte) {
		t.Helper()
		if err := unix.Sendto(forger, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: name.(*unix.SockaddrNetlink).Pid}); err != nil {
			t.Fatalf("sending what the kernel did not: %v", err)
		}
	}
	send(message(eventUID, 1, uint32(os.Getpid())))
	send(message(eventGID, 1, uint32(os.Getpid())))
	if !readable(t, l) {
		t.Fatal("the filter kept the forgery out, which is as good; this test is of nothing then")
	}
	if heard, lost := take(t, l); len(heard) != 0 || lost {
		t.Errorf("believed of threads %v, lost %t", heard, lost)
	}
	send(message(eventUID, 1, uint32(os.Getpid())+1))
	if readable(t, l) {
		t.Error("a forgery of another process's change made the descriptor readable")
	}
}

// message is what the kernel sends of a change of ids.
func message(what, thread, process uint32) []byte {
	const length = 76
	b := append(request(what, 0, 0), make([]byte, length-offsetData-8)...)
	put := func(offset int, v uint32) { binary.NativeEndian.PutUint32(b[offset:], v) }
	put(offsetLength, length)
	binary.NativeEndian.PutUint16(b[offsetDataLength:], length-offsetData)
	put(offsetThread, thread)
	put(offsetProcess, process)
	return b
}

func TestUnprivilegedThreadListens(t *testing.T) {
	needRoot(t)
	mustListen(t, os.Getpid()) // or skip
	var heard []int32
	var err error
	tid := onThread(func() {
		// The saved id lets it return, and it has no capabilities meanwhile.
		if err = call("setresuid", unix.SYS_SETRESUID, unchanged, other, unchanged); err != nil {
			return
		}
		l, listening := Listen()
		err = errors.Join(listening, call("setresuid", unix.SYS_SETRESUID, unchanged, 0, unchanged))
		if listening == nil {
			_, taking := l.Take(func(tid int32) { heard = append(heard, tid) })
			err = errors.Join(err, taking, l.Close())
		}
	})
	if err != nil || !slices.Equal(heard, []int32{tid}) {
		t.Errorf("heard of threads %v, error %v, want %d", heard, err, tid)
	}
}

func TestAvailable(t *testing.T) {
	// Somebody who listens, because of whom the kernel makes events that reach the group in all pid and user namespaces.
	mustListen(t, os.Getpid())
	mapping := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	tests := []struct {
		name string
		attr syscall.SysProcAttr
		says string
		root bool
	}{
		{"here", syscall.SysProcAttr{}, isThere, false},
		{"another user", syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61999, Gid: 61999}}, isThere, true},
		{"another network namespace", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, "error: subscribing to the process connector: connection refused", false},
		{"another pid namespace", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, isSilent, false},
		{"another user namespace", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: mapping}, isSilent, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.root {
				needRoot(t)
			}
			if err := without.Namespaces(test.attr.Cloneflags); err != nil {
				t.Skipf("making the namespace is not permitted: %v", err)
			}
			cmd := child("ask")
			cmd.SysProcAttr = &test.attr
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), test.says) {
				t.Errorf("error %v, says %q, want %q", err, out, test.says)
			}
		})
	}
}

func TestProofLeavesTheThreadAndTheQueueAlone(t *testing.T) {
	l := mustListen(t, os.Getpid())
	leftover.ByThis(t, func() {
		onThread(func() {
			const name = "/proc/thread-self/comm"
			if err := os.WriteFile(name, []byte("some name"), 0); err != nil {
				t.Error(err)
			}
			if err := l.Prove(); err != nil {
				t.Error(err)
			}
			if b, err := os.ReadFile(name); err != nil || string(b) != "some name\n" {
				t.Errorf("the thread's name is %q, error %v", b, err)
			}
			runtime.LockOSThread() // The thread ends with the goroutine, and its name with it.
		})
	})
	if readable(t, l) {
		t.Error("the proof is in the listener's queue")
	}
}

func TestSilenceIsNoProof(t *testing.T) {
	l := mustListen(t, os.Getpid())
	onThread(func() {
		runtime.LockOSThread() // The thread ends with the goroutine.
		// prctl(2) succeeds and does nothing, so that there is nothing to hear.
		if err := without.Call(unix.SYS_PRCTL, 0); err != nil {
			t.Error(err)
			return
		}
		if err := l.Prove(); !errors.Is(err, ErrSilent) {
			t.Errorf("error %v, want %v", err, ErrSilent)
		}
	})
}

func TestWaitingForWhatDoesNotComeEnds(t *testing.T) {
	s, err := join(names(uint32(os.Getpid()), 1<<31-1)) // no thread has this number
	if err != nil {
		t.Skip(err)
	}
	defer s.close()
	if err := rename(); err != nil {
		t.Fatal(err)
	}
	if ev, err := s.await(eventName); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %+v, error %v", ev, err)
	}
}

func TestWaitingPassesOverWhatIsNotWaitedFor(t *testing.T) {
	needRoot(t)
	mustListen(t, os.Getpid()) // or skip
	s, err := join(idChanges(uint32(os.Getpid()), 8))
	if err != nil {
		t.Fatal(err)
	}
	l := &Listener{socket: s}
	defer l.Close()
	ask := func(number uint32) {
		t.Helper()
		if err := l.send(request(subscribe, allEvents, number)); err != nil {
			t.Fatal(err)
		}
	}
	ask(5)
	onThread(func() { changeIDs(t) })
	ask(7)
	if ev, err := l.await(eventNone); err != nil || ev.what != eventNone || ev.answers != 8 {
		t.Errorf("got %+v, error %v, want the answer to request 7", ev, err)
	}
}

func TestClosingUnsubscribesAndLeavesNothing(t *testing.T) {
	needRoot(t)
	leftover.ByThis(t, func() {
		l, err := Listen()
		if err != nil {
			t.Skip(err)
		}
		if flags, err := unix.FcntlInt(uintptr(l.fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("the descriptor's flags are %#x, error %v: a program that is executed gets it", flags, err)
		}
		same, err := unix.FcntlInt(uintptr(l.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		still := &Listener{socket: &socket{fd: same}}
		defer still.close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if fd := l.Descriptor(); fd != -1 {
			t.Errorf("the closed listener still has descriptor %d, which may be another's by now", fd)
		}
		onThread(func() { changeIDs(t) })
		if readable(t, still) {
			t.Error("it is still subscribed")
		}
		if err := l.Close(); err == nil {
			t.Error("closing it again gives no error")
		}
	})
}

func TestTakingDoesNotAllocate(t *testing.T) {
	needRoot(t)
	l := mustListen(t, os.Getpid())
	heard := 0
	onThread(func() {
		n := testing.AllocsPerRun(100, func() {
			changeIDs(t)
			if _, err := l.Take(func(int32) { heard++ }); err != nil {
				t.Error(err)
			}
		})
		if n != 0 || heard == 0 {
			t.Errorf("%v allocations, %d changes heard", n, heard)
		}
	})
}

// nobodys returns the number of a thread that there is not: the kernel's are lower.
func nobodys(i int) int32 { return 1<<30 + int32(i) }

// twice is what is heard of threads that each change there and back.
func twice(threads ...int32) (heard []int32) {
	for _, tid := range threads {
		heard = append(heard, tid, tid)
	}
	return heard
}

// threads returns locked threads for a test, each of which calls what it is sent.
func threads(t *testing.T, n int) (tids []int32, changes []func()) {
	t.Helper()
	for range n {
		orders, did := make(chan func()), make(chan struct{})
		go func() {
			runtime.LockOSThread() // for good: the thread ends with the goroutine
			for f := range orders {
				f()
				did <- struct{}{}
			}
			close(did)
		}()
		do := func(f func()) { orders <- f; <-did }
		t.Cleanup(func() { close(orders); <-did })
		do(func() { tids = append(tids, int32(unix.Gettid())) })
		changes = append(changes, func() { do(func() { changeIDs(t) }) })
	}
	return tids, changes
}

func hears(t *testing.T, when string, l *Listener, want []int32) {
	t.Helper()
	if got := readable(t, l); got != (len(want) > 0) {
		t.Errorf("%s: the descriptor is readable: %t", when, got)
	}
	if heard, lost := take(t, l); !slices.Equal(heard, want) || lost {
		t.Errorf("%s: heard of threads %v, lost %t, want %v", when, heard, lost, want)
	}
}

func TestOnlyTheNamedThreadsAreHeard(t *testing.T) {
	needRoot(t)
	l := mustListen(t, os.Getpid())
	elsewhere := mustListen(t, os.Getpid()+1)
	tids, changes := threads(t, 3)
	for _, n := range []int{1, 2, 3, 32, 63, MostThreads} {
		list := make([]int32, n)
		for i := range list {
			list[i] = nobodys(i)
		}
		for _, at := range slices.Compact([]int{0, n / 2, n - 1}) {
			t.Run(fmt.Sprintf("%d threads, one of which is at %d", n, at), func(t *testing.T) {
				named := slices.Clone(list)
				named[at] = tids[0]
				for _, l := range []*Listener{l, elsewhere} {
					if err := l.Only(named); err != nil {
						t.Fatal(err)
					}
				}
				changes[1]()
				hears(t, "after a change of a thread that is not named", l, nil)
				changes[0]()
				changes[2]()
				hears(t, "after changes of the named and of another one", l, twice(tids[0]))
				hears(t, "as the listener of another process", elsewhere, nil)
			})
		}
	}
	t.Run("two, of which both are there", func(t *testing.T) {
		if err := l.Only(tids[:2]); err != nil {
			t.Fatal(err)
		}
		for _, change := range changes {
			change()
		}
		hears(t, "after changes of those and of another one", l, twice(tids[:2]...))
	})
	t.Run("changes of the gid too, and nothing else", func(t *testing.T) {
		if err := l.Only(tids[:1]); err != nil {
			t.Fatal(err)
		}
		// Somebody who has the kernel tell everybody in the group of everything.
		everything := mustListen(t, os.Getpid())
		if err := everything.send(request(subscribe, allEvents, 0)); err != nil {
			t.Fatal(err)
		}
		mustListen(t, os.Getpid()) // whose request is answered
		var err error
		tid := onThread(func() {
			err = errors.Join(l.Only([]int32{int32(unix.Gettid())}), rename(),
				call("setresgid", unix.SYS_SETRESGID, unchanged, other, unchanged), call("setresgid", unix.SYS_SETRESGID, unchanged, 0, unchanged))
		})
		if err != nil {
			t.Fatal(err)
		}
		hears(t, "after a renaming, and two changes of the gid", l, twice(tid))
	})
}

func TestNamingTooFewOrTooManyThreadsChangesNothing(t *testing.T) {
	needRoot(t)
	l := mustListen(t, os.Getpid())
	tids, changes := threads(t, 2)
	if err := l.Only(tids[:1]); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, MostThreads + 1, 256, 257, 5000} {
		if err := l.Only(make([]int32, n)); err == nil {
			t.Errorf("naming %d threads gives no error", n)
		}
		changes[1]()
		changes[0]()
		hears(t, fmt.Sprintf("after naming %d threads", n), l, twice(tids[0]))
	}
}

func TestNamingOtherThreadsKeepsWhatIsQueued(t *testing.T) {
	needRoot(t)
	l := mustListen(t, os.Getpid())
	tids, changes := threads(t, 3)
	var want []int32
	for i, step := range []struct {
		set   func() error
		heard []int // of the threads, of which all change
	}{
		{func() error { return nil }, []int{0, 1, 2}},
		{func() error { return l.Only(tids[1:2]) }, []int{1}},
		{func() error { return l.Only([]int32{tids[2], nobodys(0), tids[0]}) }, []int{0, 2}},
		{l.All, []int{0, 1, 2}},
		{func() error { return l.Only([]int32{nobodys(1)}) }, nil},
		{l.All, []int{0, 1, 2}},
		{l.All, []int{0, 1, 2}},
	} {
		if err := step.set(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		for _, change := range changes {
			change()
		}
		for _, n := range step.heard {
			want = append(want, twice(tids[n])...)
		}
	}
	hears(t, "after all steps", l, want)
}

// TestNamedThreadsChangeWhileOthersAreNamed has a thread change all the time while the names of other threads come and go beside its own.
func TestNamedThreadsChangeWhileOthersAreNamed(t *testing.T) {
	needRoot(t)
	l := mustListen(t, os.Getpid())
	if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue); err != nil {
		t.Fatalf("setting SO_RCVBUFFORCE: %v", err)
	}
	const changes = 100
	begin, done := make(chan int32), make(chan struct{})
	go func() {
		defer close(done)
		onThread(func() {
			begin <- int32(unix.Gettid())
			<-begin
			for range changes {
				changeIDs(t)
			}
		})
	}()
	tid := <-begin
	if err := l.Only([]int32{tid}); err != nil {
		t.Fatal(err)
	}
	begin <- 0
	for i := 0; ; i++ {
		named := []int32{tid}
		for j := range i % MostThreads {
			named = slices.Insert(named, j%(len(named)+1), nobodys(j))
		}
		if err := l.Only(named); err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 {
			if err := l.All(); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-done:
		default:
			continue
		}
		break
	}
	hears(t, "after all changes", l, slices.Repeat([]int32{tid}, 2*changes))
}
