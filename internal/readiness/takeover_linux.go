package readiness

import "time"

// stuckAfter is how long a watch's function may take before another goroutine watches in the place of the one that called it. It may
// take up to twice as long until that is noticed.
const stuckAfter = 10 * time.Millisecond

// guard is how it is found out that the watching goroutine is stuck: in a system call that whoever has the other end of a descriptor, or a copy
// of it, can make wait. It is looked at only while functions are called.
type guard struct {
	generation uint64 // of the watching goroutine: the one of an earlier generation ends when it gets on
	serving    *Watch // whose function is being called
	serial     uint64 // of the call
	seen       uint64 // of the call that was under way at the last look
	looking    bool
}

// begin is called before a watch's function. watcher.mu is held.
func (g *guard) begin(w *Watch) {
	g.serving = w
	g.serial++
	if !g.looking {
		g.looking = true
		g.seen = 0
		time.AfterFunc(stuckAfter, look)
	}
}

// end is called after it, and reports whether the goroutine, of a generation, still is the one that watches.
func (g *guard) end(generation uint64) bool {
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	if g.generation != generation {
		return false
	}
	g.serving = nil
	return true
}

// look finds out whether the watching goroutine gets on.
func look() {
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	g := &watcher.guard
	w := g.serving
	switch {
	case w == nil && g.seen == g.serial: // nothing was called since
		g.looking = false
		return
	case w != nil && g.seen == g.serial:
		g.generation++
		g.serving = nil
		go watch(g.generation)
		if w.stuck != nil {
			w.stuck()
		}
	}
	g.seen = g.serial
	time.AfterFunc(stuckAfter, look)
}
