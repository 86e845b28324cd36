// Package quota bounds how much of something there is at once, so that one user, or one machine, can't take the others' part.
package quota

import "sync"

// Shares bounds how much there is in all and for each key. Its methods may be called by many goroutines at once.
type Shares[K comparable] struct {
	Most, Each int

	mu   sync.Mutex
	all  int
	held map[K]int
}

// Take takes one for a key. It reports whether there was one; then it is to be given back.
func (s *Shares[K]) Take(key K) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= s.Most || s.held[key] >= s.Each {
		return false
	}
	if s.held == nil {
		s.held = make(map[K]int)
	}
	s.all++
	s.held[key]++
	return true
}

// Give gives one back.
func (s *Shares[K]) Give(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.held[key]--; s.held[key] == 0 {
		delete(s.held, key)
	}
}
