//go:build amd64 || arm64

package thread_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/without"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// sendStrays is a role: it sends the signal in all ways and with all values to all threads of a process.
func sendStrays() {
	pid, err := strconv.Atoi(os.Getenv(pidVariable))
	if err != nil {
		panic(err)
	}
	var sent int
	for range 400 {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			panic(err)
		}
		for _, task := range tasks {
			tid, _ := strconv.Atoi(filepath.Base(task))
			value := [...]uint64{
				rand.Uint64(), rand.Uint64N(1 << 17), rand.Uint64N(40), 1 << 16, 1<<16 - 1, 1<<32 + 1, 1 << 58, ^uint64(0),
			}[rand.IntN(8)]
			var e syscall.Errno
			switch rand.IntN(6) {
			case 0:
				e, _ = unix.Kill(pid, thread.FollowSignal).(syscall.Errno)
			case 1:
				e, _ = unix.Tgkill(pid, tid, thread.FollowSignal).(syscall.Errno)
			case 2:
				e = thread.Queue(pid, 0, value)
			default:
				e = thread.Queue(pid, tid, value)
			}
			if e == 0 {
				sent++
			} else if e != unix.ESRCH && e != unix.EAGAIN {
				fmt.Println("sending a signal:", e)
				os.Exit(3)
			}
		}
	}
	fmt.Println("sent", sent)
}

const pidVariable = "GUISE_THREAD_TEST_PID"

func TestStraySignalsDoNothing(t *testing.T) {
	needFollowing(t)
	leftover.ByThis(t, func() {
		o := newOffice(t, 8)
		cmd := roleCommand("send strays")
		cmd.Env = append(cmd.Env, fmt.Sprint(pidVariable, "=", os.Getpid()))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var sent int
		var ended atomic.Bool
		go func() {
			defer ended.Store(true)
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if n, ok := strings.CutPrefix(lines.Text(), "sent "); ok {
					sent, _ = strconv.Atoi(n)
				}
			}
		}()
		// Some that nobody else changes, one of them inside another.
		onThread(t, servers[0], func() {
			outer := enter(t, o.persons[0])
			inner := enter(t, o.persons[1])
			change(t, outer, o.persons[2])
			for !ended.Load() {
				o.employMany(t, 4, 200)
				isNow(t, "while signals rain", o.persons[1], token.AllCaps)
			}
			leave(t, inner)
			isNow(t, "after signals rained", o.persons[2], token.AllCaps)
			leave(t, outer)
		})
		if err := cmd.Wait(); err != nil || sent < 100 {
			t.Errorf("sending signals: %v, %d were sent", err, sent)
		}
	})
}

// published has a thread in a scope, kept from taking the record that Change has published.
func published(t *testing.T, from, to *token.Token, f func(w *thread.Worn)) {
	t.Helper()
	onThread(t, servers[0], func() {
		w := enter(t, from)
		thread.Block(true)
		change(t, w, to)
		arrive()
		isNow(t, "with the signal blocked", from, token.AllCaps)
		f(w)
		thread.Block(false)
		arrive()
		isNow(t, "with the signal let through", w.Token(), token.AllCaps)
		leave(t, w)
	})
}

func TestSignalForAnotherThreadDoesNothing(t *testing.T) {
	needFollowing(t)
	published(t, person(t, 61001), person(t, 61002), func(w *thread.Worn) {
		onThread(t, servers[0], func() {
			before := status(t)
			if e := thread.Queue(os.Getpid(), unix.Gettid(), uint64(w.Slot())); e != 0 {
				t.Error(e)
			}
			arrive()
			if after := status(t); after != before {
				t.Errorf("a signal for another thread changed this one from\n%s\nto\n%s", before, after)
			}
		})
	})
}

// TestForkedChildIsNotChanged forks without exec, which leaves the child a copy of everything.
func TestForkedChildIsNotChanged(t *testing.T) {
	needFollowing(t)
	published(t, person(t, 61001), person(t, 61002), func(w *thread.Worn) {
		var status unix.WaitStatus
		if _, err := unix.Wait4(forkAndSignal(uint64(w.Slot())), &status, 0, nil); err != nil {
			t.Error(err)
			return
		}
		if !status.Exited() || status.ExitStatus() != 61001%256 {
			t.Errorf("the child's uid is %d modulo 256 (it ended with %#x), want %d", status.ExitStatus(), status, 61001%256)
		}
	})
}

// forkAndSignal makes a child that sends the signal to itself and ends with its effective uid as status.
//
//go:norace
//go:noinline
func forkAndSignal(slot uint64) (pid int) {
	r, _, e := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 {
		return -1
	}
	if r == 0 {
		endSignalled(slot)
	}
	return int(r)
}

// endSignalled does nothing but system calls: it is all that runs of a child.
//
//go:norace
//go:noinline
func endSignalled(slot uint64) {
	info := [16]uint64{uint64(thread.FollowSignal), 0xffffffff, 0, slot} // siginfo_t, SI_QUEUE
	set := uint64(1) << (thread.FollowSignal - 1)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_UNBLOCK, address(&set), 0, 8, 0, 0)
	self, _, _ := syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
	_, _, e := syscall.RawSyscall6(unix.SYS_RT_TGSIGQUEUEINFO, self, self, uintptr(thread.FollowSignal), address(&info), 0, 0)
	uid, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
	if e != 0 {
		uid = 255
	}
	end(uid % 256)
}

//go:norace
func end(status uintptr) {
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, status, 0, 0)
	}
}

// forkUntil makes a child in a pid namespace of its own that has children until one has the number tid. That one sends the signal to
// itself. The status is that one's effective uid.
//
//go:norace
//go:noinline
func forkUntil(slot uint64, tid uintptr) (pid int) {
	r, _, e := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD)|unix.CLONE_NEWPID, 0, 0, 0, 0, 0)
	if e != 0 {
		return -1
	}
	if r != 0 {
		return int(r)
	}
	for range 1000 {
		child, _, e := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		switch {
		case e != 0:
			end(254)
		case child == 0:
			if self, _, _ := syscall.RawSyscall(unix.SYS_GETTID, 0, 0, 0); self == tid {
				endSignalled(slot)
			}
			end(0)
		}
		var status uint32
		syscall.RawSyscall6(unix.SYS_WAIT4, child, address(&status), 0, 0, 0, 0)
		if child == tid {
			end(uintptr(status >> 8 & 255))
		}
	}
	end(253)
	return 0
}

// forkElsewhere is a role for a process that is the first of a pid namespace: its thread's number is small.
func forkElsewhere() {
	followAnd(func(w *thread.Worn) {
		thread.Block(true)
		changeTo(w, 61002)
		tid := uintptr(unix.Gettid())
		done := make(chan struct{})
		go func() { // outside the scope
			defer close(done)
			runtime.LockOSThread()
			var status unix.WaitStatus
			if _, err := unix.Wait4(forkUntil(uint64(w.Slot()), tid), &status, 0, nil); err != nil || !status.Exited() || status.ExitStatus() != 0 {
				wrong("a process with the thread's number, in another namespace, ended with %#x, not as root (%v)", status, err)
			}
		}()
		<-done
		thread.Block(false)
	})
}

func TestThreadNumberOfAnotherNamespaceIsNotBelieved(t *testing.T) {
	needFollowing(t)
	if err := without.Namespaces(syscall.CLONE_NEWPID); err != nil {
		t.Skip("this machine makes no pid namespaces:", err)
	}
	cmd := roleCommand("fork elsewhere")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "wrong") || !strings.Contains(string(out), "went on") {
		t.Errorf("the process ended with %v and printed:\n%s", err, out)
	}
}

func TestOneSignalIsPendingAtMost(t *testing.T) {
	needFollowing(t)
	published(t, person(t, 61001), person(t, 61002), func(w *thread.Worn) {
		for i := range uint32(1000) {
			change(t, w, person(t, 61100+i%7))
		}
		if n := w.Records(); n > 3 {
			t.Errorf("%d records are kept for a thread that has not taken one", n)
		}
		value, ok := thread.TakePending()
		if !ok || value != uint64(w.Slot()) {
			t.Errorf("the pending signal has the value %d (%v), want %d", value, ok, w.Slot())
		}
		if _, ok := thread.TakePending(); ok {
			t.Error("after 1001 changes more than one signal is pending")
		}
		if e := thread.Queue(os.Getpid(), unix.Gettid(), value); e != 0 {
			t.Error(e)
		}
	})
}

// TestSignalThatComesLateDoesNothing has the signal of a scope come when it is left, and when the same slot is another scope's.
func TestSignalThatComesLateDoesNothing(t *testing.T) {
	needFollowing(t)
	onThread(t, servers[0], func() {
		before := status(t)
		thread.Block(true)
		w := enter(t, person(t, 61001))
		change(t, w, person(t, 61002))
		leave(t, w)
		if after := status(t); after != before {
			t.Errorf("leaving before the signal came did not restore the thread. Before:\n%s\nafter:\n%s", before, after)
		}
		next := enter(t, person(t, 61003))
		if next.Slot() != w.Slot() {
			t.Errorf("the next scope has slot %d, not %d again: this shows nothing", next.Slot(), w.Slot())
		}
		thread.Block(false)
		arrive()
		isNow(t, "after the last scope's signal", person(t, 61003), token.AllCaps)
		change(t, next, person(t, 61004))
		isNow(t, "after a change", person(t, 61004), token.AllCaps)
		leave(t, next)
		if after := status(t); after != before {
			t.Errorf("leaving did not restore the thread. Before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// TestCommandsStartWhileChangesRain starts programs from a scope, which share its memory until they run.
func TestCommandsStartWhileChangesRain(t *testing.T) {
	needFollowing(t)
	defer disturb()()
	o := newOffice(t, 8)
	var wait sync.WaitGroup
	var over atomic.Bool
	onThread(t, servers[0], func() {
		w := enter(t, o.persons[0])
		wait.Add(1)
		go func() {
			defer wait.Done()
			for !over.Load() {
				change(t, w, o.anybody())
			}
		}()
		for range 60 {
			out, err := exec.Command("/bin/cat", "/proc/self/status").Output()
			if err != nil {
				t.Errorf("a program that was started in the scope: %v", err)
				break
			}
			has := make(map[string][]string)
			for line := range strings.Lines(string(out)) {
				name, value, _ := strings.Cut(line, ":")
				has[name] = strings.Fields(value)
			}
			uid, err := strconv.Atoi(has["Uid"][1])
			if err != nil || uid < 61001 || uid > 61008 || has["Gid"][1] != fmt.Sprint(uid+personGID) || fmt.Sprint(has["Groups"]) != fmt.Sprint([]int{uid + personGroup}) {
				t.Errorf("a program that was started in the scope has uids %s, gids %s and groups %s", has["Uid"], has["Gid"], has["Groups"])
			}
		}
		over.Store(true)
		wait.Wait()
		arrive()
		isNow(t, "after the last change", w.Token(), token.AllCaps)
		leave(t, w)
	})
}
