package quota

import (
	"sync"
	"time"
)

// Rate bounds how often each user does something: so many times at once, and then so many a second. Its methods may be called by many
// goroutines at once.
type Rate struct {
	AtOnce, PerSecond float64

	mu    sync.Mutex
	users map[User]*spent
}

// spent is how much of AtOnce a user has used up, as of a time.
type spent struct {
	times float64
	asOf  time.Time
}

// mostRated is how many users are remembered. Beyond it those are forgotten who may do everything again.
const mostRated = 4096

// Take reports whether a user may do it once more now.
func (r *Rate) Take(u User) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	s := r.users[u]
	if s == nil {
		if len(r.users) >= mostRated {
			r.forget(now)
		}
		if r.users == nil {
			r.users = make(map[User]*spent)
		}
		s = &spent{asOf: now}
		r.users[u] = s
	}
	s.times = max(0, s.times-now.Sub(s.asOf).Seconds()*r.PerSecond)
	s.asOf = now
	if s.times+1 > r.AtOnce {
		return false
	}
	s.times++
	return true
}

func (r *Rate) forget(now time.Time) {
	for u, s := range r.users {
		if s.times <= now.Sub(s.asOf).Seconds()*r.PerSecond {
			delete(r.users, u)
		}
	}
}
