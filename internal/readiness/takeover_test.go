package readiness_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/guise-project/guise/internal/readiness"
)

// TestFunctionThatIsStuckHoldsUpNoOtherWatch: another goroutine goes on, each time, and the one that was stuck ends.
func TestFunctionThatIsStuckHoldsUpNoOtherWatch(t *testing.T) {
	for range 3 {
		bad, good := newPipe(t), newPipe(t)
		release, entered := make(chan struct{}), make(chan struct{})
		var stuck, served atomic.Int32
		var once atomic.Bool
		w, err := readiness.AddStranger(bad.r, limit(time.Millisecond), func() {
			bad.read()
			if once.CompareAndSwap(false, true) {
				close(entered)
				<-release
			}
		}, func() { stuck.Add(1) })
		if err != nil {
			t.Fatal(err)
		}
		watch(t, good, time.Millisecond, func() { good.read(); served.Add(1) })
		bad.write()
		<-entered
		good.write()
		until(t, "the other watch is served while one is stuck", func() bool { return served.Load() > 0 })
		until(t, "the stuck one's function is called", func() bool { return stuck.Load() == 1 })
		close(release)
		before := served.Load()
		good.write()
		until(t, "the other watch is served once the stuck one has got on", func() bool { return served.Load() > before })
		w.Remove()
	}
}
