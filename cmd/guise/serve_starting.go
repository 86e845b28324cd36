package main

import (
	"sync"

	"github.com/guise-project/guise/internal/quota"
)

// starting has the commands of one user start one after the other: all wait for one thread that starts them, and a user with many clients
// must not fill the queue before it. The zero value is ready.
type starting struct {
	mu    sync.Mutex
	users map[quota.User]*turn
}

type turn struct {
	mu    sync.Mutex
	count int // who has it, or waits for it
}

// wait waits for a user's turn, which lasts until the returned function is called.
func (s *starting) wait(user quota.User) (started func()) {
	s.mu.Lock()
	t := s.users[user]
	if t == nil {
		if s.users == nil {
			s.users = make(map[quota.User]*turn)
		}
		t = new(turn)
		s.users[user] = t
	}
	t.count++
	s.mu.Unlock()
	t.mu.Lock()
	return func() {
		t.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if t.count--; t.count == 0 {
			delete(s.users, user)
		}
	}
}
