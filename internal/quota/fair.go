package quota

import "sync"

// Fair divides places among users without a number for each: a user may take one as long as four times as many stay free as that user has. So
// one alone gets a fifth of them, the next a fifth of the rest, and while any are free somebody who has none gets one. It is how switches
// divide their buffers among ports (the dynamic threshold of Choudhury and Hahne). Its methods may be called by many goroutines at once.
type Fair struct {
	most int

	mu   sync.Mutex
	all  int
	held map[User]int
}

// portion is how many times as many places stay free as a user has.
const portion = 4

// NewFair returns a Fair of so many places.
func NewFair(most int) *Fair { return &Fair{most: most, held: make(map[User]int)} }

// Take takes n places for a user. It reports whether that user may have them; then they are to be given back. Root may have whatever
// is free.
func (f *Fair) Take(u User, n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.has(u, n) {
		return false
	}
	f.all += n
	f.held[u] += n
	return true
}

// Has reports whether a user may have one more place.
func (f *Fair) Has(u User) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.has(u, 1)
}

func (f *Fair) has(u User, n int) bool {
	free := f.most - f.all
	return free >= n && (u == root || portion*f.held[u] <= free-n)
}

// Give gives n places back.
func (f *Fair) Give(u User, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all -= n
	if f.held[u] -= n; f.held[u] == 0 {
		delete(f.held, u)
	}
}
