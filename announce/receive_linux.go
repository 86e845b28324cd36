package announce

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/unixsocket"
)

// received is a message with what came along.
type received struct {
	data       []byte
	truncated  bool // the message was longer than the buffer
	lost       bool // descriptors came that could not be had, or more than one
	descriptor int  // -1 if none came; the receiver's to close
	cred       *unix.Ucred
}

// inbox is the memory that messages are received in, so that looking for one costs a system call and no garbage.
type inbox struct {
	data   [longest + 1]byte
	socket unixsocket.Inbox
}

// recv receives one message without waiting. At most one descriptor is let in, with close-on-exec; where more come all count as lost.
// The other end is owner's, a uid.
func (in *inbox) recv(fd int, owner uint32) (received, error) {
	return in.recvInto(fd, in.data[:], owner)
}

func (in *inbox) recvInto(fd int, buf []byte, owner uint32) (received, error) {
	if err := discard.Check(owner); err != nil {
		return received{descriptor: -1}, fmt.Errorf("%w: %w", ErrNoDescriptors, err)
	}
	if err := unixsocket.BeginStranger(owner); err != nil {
		return received{descriptor: -1}, fmt.Errorf("%w: %w", ErrBusy, err)
	}
	m, err := in.socket.Receive(fd, buf, nil)
	unixsocket.EndStranger(owner)
	if err != nil {
		return received{descriptor: -1}, err
	}
	r := received{data: buf[:m.Length], truncated: m.Truncated, lost: m.Incomplete, descriptor: -1}
	if m.HasCredentials {
		cred := m.Credentials // the inbox's is another's soon
		r.cred = &cred
	}
	switch {
	case len(m.Descriptors) == 1 && !r.lost:
		r.descriptor = m.Descriptors[0]
	case len(m.Descriptors) > 0:
		discard.Descriptors(m.Descriptors, owner)
		r.lost = true
	}
	return r, nil
}

// receiveAnswer is how a client hears its server, a process of owner's. Only plain messages are answers.
func receiveAnswer(fd int, owner uint32) (any, error) {
	in := inboxes.Get().(*inbox)
	defer inboxes.Put(in)
	r, err := in.recv(fd, owner)
	if err == unix.ECONNRESET {
		// The server closed its end with something of ours unread. What it had said before is still there.
		r, err = in.recv(fd, owner)
	}
	if err == unix.EAGAIN {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	discard.Descriptor(r.descriptor, owner)
	if len(r.data) == 0 {
		return nil, io.EOF
	}
	m, err := decode(r.data)
	if err != nil {
		return nil, err
	}
	switch m.(type) {
	case InForce, Refusal:
		return m, nil
	}
	return nil, fmt.Errorf("%w: a server sent a client's message", ErrProtocol)
}
