package announce

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/unixsocket"
)

// First is what came first on a pipe.
type First uint8

// What may have come first.
const (
	Nothing First = iota
	Plain         // data or the end: a client that does not speak guise's protocol
	Preface       // a byte with a descriptor
)

// PeekFirst says what came first on a pipe, without consuming it. The socket must not have SO_PASSCRED set. An error is never
// taken for a plain client: it would raise the level of one that is not.
func PeekFirst(pipe int) (First, error) {
	var b [1]byte
	in := unixsocket.Get()
	defer unixsocket.Put(in)
	_, along, err := in.Peek(pipe, b[:])
	if err == unix.ECONNRESET {
		// The client has closed with something of ours unread. On a sequenced-packet socket that is said before what it had
		// sent is handed out, and only once.
		_, along, err = in.Peek(pipe, b[:])
	}
	switch {
	case err == unix.EAGAIN:
		return Nothing, nil
	case err != nil:
		return Nothing, fmt.Errorf("looking at what came first: %w", err)
	case along:
		return Preface, nil
	}
	return Plain, nil
}

// ErrNoDescriptors says that a descriptor got lost on its way because this process can't have more of them.
var ErrNoDescriptors = errors.New("out of file descriptors, or the peer sent more of them than the protocol has")

// ErrBusy says that a client is turned away because its user takes too much already.
var ErrBusy = errors.New("the server has no room for this user now")

// ReceivePreface consumes the preface of a pipe where PeekFirst found one and returns the control channel that it carries.
func ReceivePreface(pipe int) (*Receiver, error) {
	peer := pipePeer(pipe)
	in := inboxes.Get().(*inbox)
	defer inboxes.Put(in)
	r, err := in.recvInto(pipe, in.data[:1], peer.uid)
	if err != nil {
		return nil, fmt.Errorf("receiving the preface: %w", err)
	}
	if err := checkPreface(r); err != nil {
		discard.Descriptor(r.descriptor, peer.uid)
		return nil, err
	}
	return newReceiver(r.descriptor, peer)
}

func checkPreface(r received) error {
	switch {
	case r.lost:
		// Taking the client for a plain one would raise its level.
		return fmt.Errorf("receiving the preface: %w", ErrNoDescriptors)
	case r.descriptor < 0:
		return fmt.Errorf("%w: descriptors came, and not with the first byte", ErrProtocol)
	case r.truncated || len(r.data) != 1 || r.data[0] != PrefaceByte:
		return fmt.Errorf("%w: a descriptor came first, but not with the preface's byte", ErrProtocol)
	}
	return nil
}

// RefusePreface consumes what came first without waiting and, if it is a preface, tells its sender why it is refused.
func RefusePreface(pipe int, why Refusal) {
	if first, err := PeekFirst(pipe); err != nil || first != Preface {
		return
	}
	if r, err := ReceivePreface(pipe); err == nil {
		r.Refuse(why)
		r.Close()
	}
}
