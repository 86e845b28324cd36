package readiness_test

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/readiness"
)

func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) { os.Exit(leftover.Main(m)) }

// patience is how long is waited for what comes at once.
const patience = 5 * time.Second

// pipe has two ends, closed after the test.
type pipe struct {
	t    testing.TB
	r, w int
}

func newPipe(t testing.TB) *pipe {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	made := &pipe{t, p[0], p[1]}
	t.Cleanup(func() { unix.Close(made.r); made.end() })
	return made
}

func (p *pipe) write() {
	p.t.Helper()
	if _, err := unix.Write(p.w, []byte("x")); err != nil {
		p.t.Error(err)
	}
}

func (p *pipe) read() int {
	var b [64]byte
	n, _ := unix.Read(p.r, b[:])
	return n
}

func (p *pipe) end() {
	if p.w >= 0 {
		unix.Close(p.w)
		p.w = -1
	}
}

// burst is how often the tests have descriptors served in an interval.
const burst = 16

func limit(interval time.Duration) readiness.Limit {
	return readiness.Limit{Times: burst, Interval: interval}
}

// watch has ready called for the pipe until the end of the test, and no longer.
func watch(t testing.TB, p *pipe, interval time.Duration, ready func()) *readiness.Watch {
	t.Helper()
	w, err := readiness.Add(p.r, limit(interval), ready)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Remove)
	return w
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); runtime.Gosched() {
		if time.Since(begun) > patience {
			t.Errorf("after %v: %s has not happened", patience, what)
			return
		}
	}
}

// round waits until the watching goroutine has served another descriptor that became ready now: what it had to do before is done.
func round(t testing.TB) {
	t.Helper()
	p := newPipe(t)
	var served atomic.Bool
	w := watch(t, p, time.Millisecond, func() { p.read(); served.Store(true) })
	p.write()
	until(t, "that a new descriptor is served", served.Load)
	w.Remove()
}

func TestReadyDescriptorsAreServed(t *testing.T) {
	const many = 200
	var served [many]atomic.Int32
	var pipes []*pipe
	for i := range many {
		p := newPipe(t)
		pipes = append(pipes, p)
		watch(t, p, time.Hour, func() { served[i].Add(int32(p.read())) })
	}
	round(t)
	for i := range served {
		if n := served[i].Load(); n != 0 {
			t.Errorf("descriptor %d was served %d times before it was ready", i, n)
		}
	}
	for n := int32(1); n <= 3; n++ {
		for _, p := range pipes {
			p.write()
		}
		for i := range served {
			until(t, "that each of many descriptors is served", func() bool { return served[i].Load() == n })
		}
	}
}

func TestEndIsServed(t *testing.T) {
	p := newPipe(t)
	served := make(chan struct{})
	var w *readiness.Watch
	var mu sync.Mutex
	mu.Lock()
	w = watch(t, p, time.Hour, func() {
		mu.Lock()
		defer mu.Unlock()
		w.Remove()
		close(served) // panics if it is called again
	})
	mu.Unlock()
	p.end()
	select {
	case <-served:
	case <-time.After(patience):
		t.Error("the end of a descriptor's other side is not served")
	}
	round(t)
}

// TestBusyDescriptorRests has a descriptor that is always ready.
func TestBusyDescriptorRests(t *testing.T) {
	for _, rest := range []struct {
		name     string
		interval time.Duration
	}{{"for long", time.Hour}, {"for a moment", 20 * time.Millisecond}} {
		t.Run(rest.name, func(t *testing.T) {
			busy := newPipe(t)
			var served atomic.Int32
			watch(t, busy, rest.interval, func() { served.Add(1) })
			busy.write() // and nobody reads it
			until(t, "that it is served as often as it may be", func() bool { return served.Load() >= burst })
			for range 5 {
				round(t) // others are served all the while
			}
			if n := served.Load(); rest.interval == time.Hour && n != burst {
				t.Errorf("a descriptor that is always ready was served %d times in an interval, want %d", n, burst)
			}
			if rest.interval != time.Hour {
				until(t, "that it is served again after its rest", func() bool { return served.Load() >= 3*burst })
			}
		})
	}
}

// TestQuietDescriptorsAreServedAtOnce has more than a burst of bytes come one after the other, each in an interval of its own.
// TestWhatTakesLongCountsAsManyTimes has a descriptor that is always ready, and each time for as much as four intervals are for.
func TestWhatTakesLongCountsAsManyTimes(t *testing.T) {
	const interval, times = 10 * time.Millisecond, 12
	p := newPipe(t)
	var served atomic.Int32
	ready := make(chan *readiness.Watch, 1)
	all := make(chan struct{})
	begun := time.Now()
	w := watch(t, p, interval, func() {
		w := <-ready
		if served.Add(1) < times {
			w.Charge(4*burst - 1)
			ready <- w
		} else {
			p.read()
			close(all)
		}
	})
	ready <- w
	p.write()
	select {
	case <-all:
	case <-time.After(20 * patience):
		t.Fatalf("it was served %d times of %d in %v", served.Load(), times, 20*patience)
	}
	// The intervals may have begun before; on a busy machine it takes longer.
	if took, least := time.Since(begun), (times-2)*4*interval; took < least {
		t.Errorf("it was served %d times in %v, want %v at least", times, took, least)
	}
}

func TestQuietDescriptorIsServedBeyondItsBurst(t *testing.T) {
	p := newPipe(t)
	var served atomic.Int32
	watch(t, p, time.Millisecond, func() { served.Add(int32(p.read())) })
	for n := range int32(4 * burst) {
		p.write()
		until(t, "that one more byte is served", func() bool { return served.Load() == n+1 })
	}
}

func TestSuspendAndResume(t *testing.T) {
	for _, resting := range []bool{false, true} {
		name := map[bool]string{false: "while it is waited for", true: "while it rests"}[resting]
		t.Run(name, func(t *testing.T) {
			interval := time.Hour
			if resting {
				interval = 20 * time.Millisecond
			}
			p := newPipe(t)
			var served atomic.Int32
			w := watch(t, p, interval, func() { served.Add(1) })
			if resting {
				p.write()
				until(t, "that it rests", func() bool { return served.Load() >= burst })
			}
			w.Suspend()
			w.Suspend()
			round(t) // a call may have been under way
			before := served.Load()
			if !resting {
				p.write()
			}
			for begun := time.Now(); resting && time.Since(begun) < 2*interval; {
				round(t)
			}
			round(t)
			if n := served.Load(); n != before {
				t.Errorf("it was served %d times while it was suspended", n-before)
			}
			w.Resume()
			w.Resume()
			until(t, "that it is served after Resume", func() bool { return served.Load() > before })
		})
	}
}

// TestSuspendFromItsOwnFunction is what a server does that can take no more for now.
func TestSuspendFromItsOwnFunction(t *testing.T) {
	p := newPipe(t)
	var served atomic.Int32
	var self atomic.Pointer[readiness.Watch]
	self.Store(watch(t, p, time.Hour, func() {
		if w := self.Load(); w != nil {
			w.Suspend()
			served.Add(1)
		}
	}))
	p.write()
	for n := int32(1); n <= 3; n++ {
		until(t, "that it is served once more", func() bool { return served.Load() == n })
		round(t)
		if got := served.Load(); got != n {
			t.Errorf("it was served %d times, want %d: it has suspended itself", got, n)
		}
		self.Load().Resume()
	}
}

func TestRemovedIsNotServed(t *testing.T) {
	for _, how := range []string{"waiting", "suspended", "resting", "from its own function"} {
		t.Run(how, func(t *testing.T) {
			p := newPipe(t)
			var served atomic.Int32
			var self atomic.Pointer[readiness.Watch]
			w := watch(t, p, 20*time.Millisecond, func() {
				served.Add(1)
				if w := self.Load(); w != nil && how == "from its own function" {
					w.Remove()
					w.Remove()
				}
			})
			self.Store(w)
			switch how {
			case "suspended":
				w.Suspend()
			case "resting":
				p.write()
				until(t, "that it rests", func() bool { return served.Load() >= burst })
			case "from its own function":
				p.write()
				until(t, "that it is served", func() bool { return served.Load() == 1 })
			}
			w.Remove()
			w.Resume()
			w.Suspend()
			w.Resume()
			round(t) // a call may have been under way
			before := served.Load()
			if how == "waiting" || how == "suspended" {
				p.write()
			}
			for begun := time.Now(); time.Since(begun) < 50*time.Millisecond; {
				round(t)
			}
			if n := served.Load(); n != before {
				t.Errorf("it was served %d times after Remove", n-before)
			}
			// Its number may be another's now.
			unix.Close(p.r)
			next := newPipe(t)
			var others atomic.Int32
			if next.r != p.r {
				if err := unix.Dup3(next.r, p.r, unix.O_CLOEXEC); err != nil {
					t.Fatal(err)
				}
				unix.Close(next.r)
				next.r = p.r
			}
			p.r = -1
			watch(t, next, time.Hour, func() { others.Add(int32(next.read())) })
			next.write()
			until(t, "that the descriptor that has its number now is served", func() bool { return others.Load() == 1 })
			if n := served.Load(); n != before {
				t.Errorf("it was served for a descriptor that has its number now")
			}
		})
	}
}

func TestWhatCannotBeWaitedFor(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, fd := range []int{-1, int(f.Fd())} {
		if _, err := readiness.Add(fd, limit(time.Second), func() {}); err == nil {
			t.Errorf("Add of descriptor %d gives no error", fd)
		}
	}
	round(t)
}

// TestManyAtOnce is for the race detector.
func TestManyAtOnce(t *testing.T) {
	var wait sync.WaitGroup
	for range 8 {
		p := newPipe(t)
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range 200 {
				var served atomic.Int32
				w, err := readiness.Add(p.r, limit(time.Millisecond), func() { served.Add(1) })
				if err != nil {
					t.Error(err)
					return
				}
				if i%2 == 0 {
					p.write()
				}
				w.Suspend()
				w.Resume()
				if i%5 == 0 {
					until(t, "that it is served", func() bool { return served.Load() > 0 })
				}
				w.Remove()
			}
		}()
	}
	wait.Wait()
}
