package guise

import (
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/unixsocket"
)

// MaxMessage is the longest message that can be received, in bytes. The kernel's own limit for senders is below it unless
// they raise their send buffer.
const MaxMessage = 256 << 10

// messageReader reads messages off a sequenced-packet socket, so that a short buffer loses nothing and an empty message is no
// end. The socket has SO_PASSCRED set: that tells the two apart, because only a message comes with control data.
type messageReader struct {
	owner uint32 // the uid that sends
	rest  []byte // of the last message
	spill *[]byte
}

// spills are what the tails of messages that are longer than the reader's buffer are read into.
var spills = sync.Pool{New: func() any { b := make([]byte, MaxMessage); return &b }}

// receive reads one message without waiting, or what is left of the last. fresh says that it is the first part of one.
func (r *messageReader) receive(fd int, p []byte) (n int, fresh bool, err error) {
	if len(r.rest) > 0 {
		n := copy(p, r.rest)
		r.rest = r.rest[n:]
		if len(r.rest) > 0 {
			return n, false, ErrMoreData
		}
		r.release()
		return n, false, nil
	}
	if r.spill == nil {
		r.spill = spills.Get().(*[]byte)
	}
	defer func() {
		if len(r.rest) == 0 {
			r.release()
		}
	}()
	if err := discard.Check(r.owner); err != nil {
		return 0, false, err
	}
	in := unixsocket.Get()
	defer unixsocket.Put(in)
	m, err := in.Receive(fd, p, *r.spill)
	if err != nil {
		return 0, false, err
	}
	discard.Descriptors(m.Descriptors, r.owner)
	n = m.Length
	switch {
	case n == 0 && !m.HasCredentials && len(m.Descriptors) == 0:
		return 0, false, io.EOF
	case m.Truncated:
		return 0, true, fmt.Errorf("%w: one of more than %d bytes came", ErrMessageTooLong, MaxMessage)
	case n > len(p):
		r.rest = (*r.spill)[:n-len(p)]
		return len(p), true, ErrMoreData
	}
	return n, true, nil
}

func (r *messageReader) release() {
	if r.spill != nil {
		spills.Put(r.spill)
		r.spill, r.rest = nil, nil
	}
}

// readMessage is a connection's Read in message mode.
func (c *Conn) readMessage(r *messageReader, p []byte) (n int, fresh bool, err error) {
	waitErr := c.raw.Read(func(fd uintptr) bool {
		n, fresh, err = r.receive(int(fd), p)
		return err != unix.EAGAIN
	})
	if waitErr != nil {
		return 0, false, waitErr
	}
	return n, fresh, err
}

// readAnswer reads on a client's end what owner, a uid, sends. mu is held for r, which is for message mode.
func (c *Conn) readAnswer(mu *sync.Mutex, r *messageReader, p []byte, owner uint32) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !c.message {
		return c.readStream(p, owner)
	}
	mu.Lock()
	defer mu.Unlock()
	n, _, err = c.readMessage(r, p)
	return n, err
}

// sendEmpty sends a message of no bytes.
func (c *Conn) sendEmpty() error {
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendto(int(fd), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil)
		return sendErr != unix.EAGAIN
	})
	if err != nil {
		return err
	}
	return sendErr
}
