package smb

import (
	"context"
	"fmt"
	"sync"
)

// A client can make reading its cache take as long as it likes, and each such reader costs a thread. So only some may read for one
// user, and for all of them.
const (
	slotsPerUser = 8
	slotsForAll  = 512
)

// slots counts who reads.
type slots struct {
	mu    sync.Mutex
	all   int
	users map[uint32]int
	freed chan struct{} // closed when one is given back
}

var readers = slots{users: make(map[uint32]int), freed: make(chan struct{})}

func (s *slots) take(ctx context.Context, uid uint32) error {
	for {
		s.mu.Lock()
		if s.all < slotsForAll && s.users[uid] < slotsPerUser {
			s.all++
			s.users[uid]++
			s.mu.Unlock()
			return nil
		}
		freed := s.freed
		s.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return fmt.Errorf("%d others wait for the credential cache of uid %d: %w", slotsPerUser, uid, ctx.Err())
		}
	}
}

func (s *slots) giveBack(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.users[uid]--; s.users[uid] == 0 {
		delete(s.users, uid)
	}
	close(s.freed)
	s.freed = make(chan struct{})
}
