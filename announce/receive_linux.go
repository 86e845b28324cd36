package announce

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/unixsocket"
)

// roomForOne is a control buffer's length with room for exactly one descriptor: CMSG_SPACE would have room for two.
var roomForOne = unix.CmsgLen(4)

// received is a message with what came along.
type received struct {
	data       []byte
	truncated  bool // the message was longer than the buffer
	lost       bool // MSG_CTRUNC: descriptors came that could not be had
	descriptor int  // -1 if none came; the receiver's to close
	cred       *unix.Ucred
}

// inbox is the memory that messages are received in, so that looking for one costs a system call and no garbage.
type inbox struct {
	data    [longest + 1]byte
	control [64]byte
	socket  unixsocket.Inbox
}

// recv receives one message without waiting. At most one descriptor is let in, with close-on-exec; more count as lost.
func (in *inbox) recv(fd int, withCred bool) (received, error) {
	return in.recvInto(fd, in.data[:], withCred)
}

func (in *inbox) recvInto(fd int, buf []byte, withCred bool) (received, error) {
	room := roomForOne
	if withCred {
		room += unix.CmsgSpace(unix.SizeofUcred)
	}
	control := in.control[:]
	n, controlLen, flags, err := in.socket.Receive(fd, buf, nil, control[:room], 0)
	if err != nil {
		return received{descriptor: -1}, err
	}
	r := received{
		data:       buf[:n],
		truncated:  flags&unix.MSG_TRUNC != 0,
		lost:       flags&unix.MSG_CTRUNC != 0,
		descriptor: -1,
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlLen])
	if err != nil {
		r.lost = true
		return r, nil
	}
	for i := range messages {
		switch messages[i].Header.Type {
		case unix.SCM_CREDENTIALS:
			r.cred, err = unix.ParseUnixCredentials(&messages[i])
		case unix.SCM_RIGHTS:
			var fds []int
			if fds, err = unix.ParseUnixRights(&messages[i]); err == nil {
				for _, fd := range fds {
					discard.Descriptor(r.descriptor)
					r.descriptor = fd
				}
				r.lost = r.lost || len(fds) != 1
			}
		}
		if err != nil {
			r.lost = true
		}
	}
	return r, nil
}

// receiveAnswer is how a client hears its server. Only plain messages are answers.
func receiveAnswer(fd int) (any, error) {
	in := inboxes.Get().(*inbox)
	defer inboxes.Put(in)
	r, err := in.recv(fd, false)
	if err == unix.ECONNRESET {
		// The server closed its end with something of ours unread. What it had said before is still there.
		r, err = in.recv(fd, false)
	}
	if err == unix.EAGAIN {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	discard.Descriptor(r.descriptor)
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
