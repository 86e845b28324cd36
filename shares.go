package guise

import (
	"net/netip"
	"sync"
)

// shares bounds how much there is of something, in all and for each machine that it is for, so that one can't take the others' part.
type shares struct {
	most, each int

	mu   sync.Mutex
	all  int
	held map[netip.Addr]int
}

// take takes one for a machine. It reports whether there was one; then it is to be given back.
func (s *shares) take(of netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= s.most || s.held[of] >= s.each {
		return false
	}
	if s.held == nil {
		s.held = make(map[netip.Addr]int)
	}
	s.all++
	s.held[of]++
	return true
}

func (s *shares) give(of netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.held[of]--; s.held[of] == 0 {
		delete(s.held, of)
	}
}
