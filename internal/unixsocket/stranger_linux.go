package unixsocket

import (
	"errors"
	"fmt"

	"github.com/guise-project/guise/internal/quota"
)

// Receiving from a socket of which a stranger has a copy may wait for as long as the stranger likes, whatever the flags, and can't be
// interrupted: recvmsg(2) takes a lock of the socket (unix_sock.iolock of the kernel), which the stranger's own recvmsg holds while it
// copies to memory of a file on a FUSE; setsockopt(2) takes another, held while a filter is copied from there. So each user may have so many
// threads wait, and whoever receives holds nothing that others need.
const (
	mostReceiving    = 2048
	mostReceivingOne = 64
)

var receiving = quota.Shares[quota.User]{Most: mostReceiving, Each: mostReceivingOne}

// ErrHeld says that as many threads are receiving from a user's sockets as may.
var ErrHeld = errors.New("too many of this user's sockets can't be received from")

// BeginStranger is called before receiving from, or setting an option of, a socket that owner, a uid, may have a copy of. If it returns nil
// EndStranger has to follow.
func BeginStranger(owner uint32) error {
	if !receiving.Take(quota.Of(owner)) {
		return fmt.Errorf("%w: uid %d has %d of them", ErrHeld, owner, mostReceivingOne)
	}
	return nil
}

// EndStranger follows BeginStranger.
func EndStranger(owner uint32) { receiving.Give(quota.Of(owner)) }
