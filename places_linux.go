package guise

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/quota"
	"github.com/guise-project/guise/token"
)

// places are the process's descriptors that clients of this machine may take, each one for its connection and one more for a control
// channel that stays open, whichever listener they come to.
var places = sync.OnceValue(func() *quota.Fair {
	limit := unix.Rlimit{Cur: 1024}
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	most := int(min(limit.Cur, 1<<30))
	return quota.NewFair(most - min(most/4, mostOwn))
})

// fewDescriptors reports whether one message could bring more descriptors than this process can have: what has no place in its table the
// kernel closes inside recvmsg(2).
var fewDescriptors = sync.OnceValue(func() bool {
	var limit unix.Rlimit
	return unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && limit.Cur < 2*mostOwn
})

// heldUp are the users who have held up the goroutine that follows all clients. Theirs are followed on others from then on.
var heldUp heldUpUsers

type heldUpUsers struct {
	mu    sync.Mutex
	users map[quota.User]struct{}
}

// mostHeldUp is how many are remembered.
const mostHeldUp = 4096

func (h *heldUpUsers) has(user quota.User) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, has := h.users[user]
	return has
}

func (h *heldUpUsers) add(user quota.User) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users == nil || len(h.users) >= mostHeldUp {
		h.users = make(map[quota.User]struct{})
	}
	h.users[user] = struct{}{}
}

// mostOwn is how many descriptors are left to the process itself, at most; a quarter of those that it may have if that is less.
const mostOwn = 1024

// bytesOfAPlace is how large a client's token may be for each place that it takes: one may have 65,536 groups, and is kept for as long as
// the connection.
const bytesOfAPlace = 4 << 10

// takePlaces takes places for the connection of a client, and returns how many.
func (l *Listener) takePlaces(t *token.Token) (int, error) {
	uid := t.UID()
	if err := discard.Check(uid); err != nil {
		return 0, err
	}
	user := quota.Of(uid)
	if l.config.MaxPerUser > 0 {
		if !l.perUser.Take(user) {
			return 0, fmt.Errorf("%w: uid %d has %d connections (ListenConfig.MaxPerUser)", announce.ErrBusy, uid, l.config.MaxPerUser)
		}
		return 1, nil
	}
	n := 1 + t.Bytes(nil)/bytesOfAPlace
	if !places().Take(user, n) {
		return 0, fmt.Errorf("%w: uid %d has as many connections as leave room for others (see ListenConfig.MaxPerUser)", announce.ErrBusy, uid)
	}
	return n, nil
}

// takeChannelPlace takes one more for its control channel.
func (l *Listener) takeChannelPlace(uid uint32) error {
	if l.config.MaxPerUser == 0 && !places().Take(quota.Of(uid), 1) {
		return fmt.Errorf("%w: the connections of uid %d leave no room for one with dynamic tracking", announce.ErrBusy, uid)
	}
	return nil
}

// givePlaces gives back those of a connection, which has taken n.
func (l *Listener) givePlaces(uid uint32, n int) {
	switch user := quota.Of(uid); {
	case n == 0: // a client of another machine
	case l.config.MaxPerUser > 0:
		l.perUser.Give(user)
	default:
		places().Give(user, n)
	}
}
