package unixsocket

import (
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
)

// inboxes are shared: an Inbox is large, and in use only during a call.
var inboxes = sync.Pool{New: func() any { return new(Inbox) }}

// Get returns an Inbox for a moment; Put takes it back.
func Get() *Inbox { return inboxes.Get().(*Inbox) }

// Put takes back an Inbox. What it received must not be used any more.
func Put(in *Inbox) { inboxes.Put(in) }

// reader is one call of [Read].
type reader struct {
	data  []byte
	owner uint32
	n     int
	err   error
	try   func(fd uintptr) bool
}

var readers = sync.Pool{New: func() any {
	r := new(reader)
	r.try = r.receive
	return r
}}

// Read reads from a stream socket as read(2) does, waiting as its deadline says, except that descriptors which owner, a uid, sends along
// are received and discarded: the kernel would close them inside the call. At the end it returns [io.EOF].
func Read(raw syscall.RawConn, p []byte, owner uint32) (int, error) {
	r := readers.Get().(*reader)
	r.data, r.owner = p, owner
	err := raw.Read(r.try)
	n := r.n
	if err == nil {
		err = r.err
	}
	r.data, r.n, r.err = nil, 0, nil
	readers.Put(r)
	return n, err
}

func (r *reader) receive(fd uintptr) bool {
	if r.err = discard.Check(r.owner); r.err != nil {
		return true
	}
	in := Get()
	defer Put(in)
	m, err := in.Receive(int(fd), r.data, nil)
	if err == unix.EAGAIN {
		return false
	}
	r.n, r.err = m.Length, err
	if err == nil && m.Length == 0 {
		r.err = io.EOF
	}
	discard.Descriptors(m.Descriptors, r.owner)
	return true
}
