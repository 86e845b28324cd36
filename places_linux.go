package guise

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/quota"
)

// places are the process's descriptors that clients of this machine may take, each one for its connection and one more for a control
// channel that stays open, whichever listener they come to.
var places = sync.OnceValue(func() *quota.Fair {
	limit := unix.Rlimit{Cur: 1024}
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	most := int(min(limit.Cur, 1<<30))
	return quota.NewFair(most - min(most/4, mostOwn))
})

// mostOwn is how many descriptors are left to the process itself, at most; a quarter of those that it may have if that is less.
const mostOwn = 1024

// takePlace takes a descriptor's place for a client of uid.
func takePlace(uid uint32) error {
	if err := discard.Check(uid); err != nil {
		return err
	}
	if !places().Take(quota.Of(uid), 1) {
		return fmt.Errorf("%w: uid %d has as many connections as leave room for others", announce.ErrBusy, uid)
	}
	return nil
}

func givePlaces(uid uint32, n int) { places().Give(quota.Of(uid), n) }
