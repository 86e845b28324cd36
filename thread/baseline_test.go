package thread_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// rules are of how a thread is scheduled after scopes. Each runs in a process of its own, on a goroutine that is locked to a thread which
// has been in no scope, and returns what is wrong.
var rules = map[string]func() error{
	"what an administrator does to all threads stays": func() error {
		if err := scope(nil); err != nil {
			return err
		}
		return errors.Join(
			allNiceTo(3), scope(nil), nice("after a scope", 3),
			scope(niceTo(5)), nice("after a scope in which the client changed it", 3))
	},
	"what an administrator does to all threads during a scope stays": func() error {
		return errors.Join(scope(func() error {
			done := make(chan error)
			go func() { done <- allNiceTo(3) }() // as the server, which stands for root
			return <-done
		}), nice("after the scope", 3))
	},
	"what an administrator does to one thread does not": func() error {
		return errors.Join(
			scope(nil), niceTo(3)(),
			scope(nil), nice("after a scope", 0))
	},
	"what the program has given a thread before its first scope stays": func() error {
		return errors.Join(
			niceTo(3)(),
			scope(nil), nice("after a scope", 3),
			scope(niceTo(5)), nice("after a scope in which the client changed it", 3),
			niceTo(5)(), scope(nil), nice("after a scope before which the client changed it", 3))
	},
	"what the program gives a thread later stays if it says so": func() error {
		return errors.Join(
			scope(nil), thread.Reschedule(niceTo(3)), nice("after Reschedule", 3),
			scope(niceTo(5)), nice("after a scope", 3),
			thread.Reschedule(niceTo(4)), scope(nil), nice("after a scope after another Reschedule", 4))
	},
	"a change between scopes is undone when the next is entered": func() error {
		var inside error
		return errors.Join(
			scope(nil), niceTo(5)(),
			scope(func() error { inside = nice("in the scope", 0); return nil }), inside)
	},
	"a scope within another does not take what it finds for the thread's own": func() error {
		return errors.Join(
			scope(func() error {
				return errors.Join(niceTo(5)(), scope(nil), nice("after the inner scope", 0), niceTo(5)())
			}), nice("after both scopes", 0))
	},
	"a thread that began on one that a client had changed is as the process": func() error {
		if err := scope(nil); err != nil { // or the process would be as this thread
			return err
		}
		for {
			result := make(chan error)
			other := make(chan bool, 1)
			go func() { // not locked, as a server's goroutines are
				runtime.LockOSThread()
				tid := unix.Gettid()
				err := niceTo(5)()
				runtime.UnlockOSThread()
				err = errors.Join(err, scope(func() error {
					other <- unix.Gettid() != tid
					return nice("in the scope", 0)
				}))
				result <- err
			}()
			err := <-result
			if moved := <-other; !moved {
				return err
			}
		}
	},
	"a thread does not inherit the baseline of one that had its number": func() error {
		err := errors.Join(niceTo(3)(), scope(nil), nice("after a scope", 3))
		thread.ForgetStart()
		return errors.Join(err, niceTo(4)(), scope(nil), nice("after a scope of a later thread of the number", 4))
	},
	"a thread that nobody uses is mended": func() error {
		if err := scope(nil); err != nil {
			return err
		}
		if err := niceTo(5)(); err != nil {
			return err
		}
		for begun := time.Now(); nice("", 0) != nil && time.Since(begun) < 30*time.Second; {
			time.Sleep(10 * time.Millisecond)
		}
		return nice("long after a scope", 0)
	},
	"a thread that the program schedules is left alone": func() error {
		return errors.Join(scope(nil), thread.Reschedule(func() error {
			err := niceTo(3)()
			thread.Sweep()
			return err
		}), nice("after Reschedule", 3), func() error { thread.Sweep(); return nice("after a sweep", 3) }())
	},
	"Reschedule is refused in a scope": func() error {
		return scope(func() error {
			if err := thread.Reschedule(niceTo(3)); err == nil {
				return errors.New("Reschedule gives no error in a scope")
			}
			return nice("after it", 0)
		})
	},
}

func init() {
	for name, rule := range rules {
		roles[name] = func() {
			if err := rule(); err != nil {
				fmt.Println(err)
			}
		}
	}
}

func TestSchedulingOfThreads(t *testing.T) {
	needRoot(t)
	for name := range rules {
		t.Run(name, func(t *testing.T) {
			if out, err := runRole(name); err != nil || out != "the process went on\n" {
				t.Errorf("%v, %s", err, out)
			}
		})
	}
}

// scope calls f in a scope of uid 61001.
func scope(f func() error) error {
	client, err := token.FromIDs(61001, 61001, nil)
	if err != nil {
		return err
	}
	var w thread.Worn
	if err := w.Enter(client); err != nil {
		return fmt.Errorf("Enter: %w", err)
	}
	if f != nil {
		err = f()
	}
	if leave := w.Leave(); leave != nil {
		err = errors.Join(err, fmt.Errorf("Leave: %w", leave))
	}
	return err
}

// niceTo returns a function that changes the calling thread.
func niceTo(value int) func() error {
	return func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, value) }
}

// allNiceTo changes all threads of the process that there are.
func allNiceTo(value int) error {
	for _, tid := range threads(os.Getpid()) {
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, value); err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

// nice returns an error if the calling thread has another nice value.
func nice(when string, want int32) error {
	attr, err := unix.SchedGetAttr(0, 0)
	if err == nil && attr.Nice != want {
		err = fmt.Errorf("%s the nice value is %d, want %d", when, attr.Nice, want)
	}
	return err
}

// TestThreadThatCannotBeMendedIsGivenUp has a service find a thread that a client's late call has changed.
func TestThreadThatCannotBeMendedIsGivenUp(t *testing.T) {
	needRoot(t)
	limitNice(t, 0)
	var tid int
	onThread(t, servers[3], func() {
		tid = unix.Gettid()
		if err := errors.Join(scope(nil), niceTo(5)()); err != nil {
			t.Error(err)
			return
		}
		runtime.UnlockOSThread() // this test's own
		err := scope(func() error { t.Error("the function ran on a thread that the client had changed"); return nil })
		var head [128]byte
		n := runtime.Stack(head[:], false)
		runtime.LockOSThread() // nobody else may get it, whatever comes out
		if err == nil || !strings.Contains(err.Error(), "LimitNICE") {
			t.Errorf("entering a scope on a thread that can't be mended gives %v, want an error that says what to do", err)
		}
		if !strings.Contains(string(head[:n]), "locked to thread") {
			t.Error("the goroutine is not locked to the thread any more, so others get it")
		}
	})
	waitUntilGone(t, tid)
}

func TestSchedulingIsRestoredAsTheKernelTakesIt(t *testing.T) {
	for _, test := range []struct {
		name            string
		want, now, made unix.SchedAttr
	}{
		{"nice value", unix.SchedAttr{Nice: 1, Util_max: 1024}, unix.SchedAttr{Nice: 5, Util_max: 1024}, unix.SchedAttr{Nice: 1, Util_max: 1024}},
		{"clamps", unix.SchedAttr{Util_max: 1024}, unix.SchedAttr{Util_min: 1, Util_max: 2},
			unix.SchedAttr{Util_max: 1024, Flags: unix.SCHED_FLAG_UTIL_CLAMP_MIN | unix.SCHED_FLAG_UTIL_CLAMP_MAX}},
		{"one clamp", unix.SchedAttr{Util_max: 1024}, unix.SchedAttr{Util_max: 2},
			unix.SchedAttr{Util_max: 1024, Flags: unix.SCHED_FLAG_UTIL_CLAMP_MAX}},
		{"clamp, and the children's policy", unix.SchedAttr{Util_min: 7, Util_max: 1024, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, unix.SchedAttr{Util_max: 1024},
			unix.SchedAttr{Util_min: 7, Util_max: 1024, Flags: unix.SCHED_FLAG_RESET_ON_FORK | unix.SCHED_FLAG_UTIL_CLAMP_MIN}},
		{"slice", unix.SchedAttr{Runtime: 3_000_000}, unix.SchedAttr{Runtime: 100_000}, unix.SchedAttr{Runtime: 3_000_000}},
		{"real-time policy", unix.SchedAttr{Policy: unix.SCHED_RR, Priority: 9}, unix.SchedAttr{Policy: unix.SCHED_IDLE}, unix.SchedAttr{Policy: unix.SCHED_RR, Priority: 9}},
		{"deadline", unix.SchedAttr{Policy: unix.SCHED_DEADLINE, Runtime: 1, Deadline: 2, Period: 3}, unix.SchedAttr{}, unix.SchedAttr{Policy: unix.SCHED_DEADLINE, Runtime: 1, Deadline: 2, Period: 3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := thread.Restoring(test.want, test.now); got != test.made {
				t.Errorf("a thread that is %+v\nand is to be %+v\nis given %+v,\nwant %+v", test.now, test.want, got, test.made)
			}
		})
	}
}

func waitUntilGone(t *testing.T, tid int) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid)); errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("thread %d, which is not to be used any more, goes on", tid)
		}
	}
}
