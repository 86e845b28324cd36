// Package unixsocket is recvmsg(2) on Unix sockets with room for everything that the other end can send along: what has no room
// is dropped by the kernel inside the call, and closing it there can take as long as whoever sent it likes.
package unixsocket

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// MostDescriptors is how many descriptors one message can bring (SCM_MAX_FD of the kernel).
const MostDescriptors = 253

// controlRoom is room for the descriptors of a message, its credentials, a pidfd, a security label, and timestamps of every kind. All
// but the descriptors come only if the socket has an option set, which whoever has a copy of the socket can set.
const controlRoom = 2048

// Inbox is the memory that one reader receives with. The zero value is ready.
type Inbox struct {
	header      unix.Msghdr
	vectors     [2]unix.Iovec
	control     [controlRoom]byte
	descriptors [MostDescriptors]int
}

// Message is what was received.
type Message struct {
	// Length is of the data, in bytes.
	Length int
	// Truncated says that the message was longer than the buffers (MSG_TRUNC).
	Truncated bool
	// Incomplete says that something came along which could not be had (MSG_CTRUNC): the process is out of descriptors.
	Incomplete bool
	// HasCredentials says that Credentials came with the message.
	HasCredentials bool
	Credentials    unix.Ucred
	// Descriptors are those that the sender passed, with close-on-exec. They are the caller's to close, and closing one may block: see
	// package discard. The slice is the Inbox's.
	Descriptors []int
}

// Receive receives into data, and what does not fit there into more, which may be nil. It never waits, and retries after EINTR. A pidfd
// that the kernel adds by itself (SO_PASSPIDFD) is closed.
func (in *Inbox) Receive(fd int, data, more []byte) (Message, error) {
	n, err := in.call(fd, data, more, in.control[:], 0)
	if err != nil {
		return Message{}, err
	}
	m := Message{
		Length:     n,
		Truncated:  in.header.Flags&unix.MSG_TRUNC != 0,
		Incomplete: in.header.Flags&unix.MSG_CTRUNC != 0,
	}
	in.parse(&m, in.control[:in.header.Controllen])
	in.header, in.vectors = unix.Msghdr{}, [2]unix.Iovec{}
	return m, nil
}

// Peek looks at what comes next without consuming it. For what comes along there is no room, so nothing is installed: along says that
// there is something.
func (in *Inbox) Peek(fd int, data []byte) (n int, along bool, err error) {
	n, err = in.call(fd, data, nil, nil, unix.MSG_PEEK)
	along = err == nil && in.header.Flags&unix.MSG_CTRUNC != 0
	in.header, in.vectors = unix.Msghdr{}, [2]unix.Iovec{}
	return n, along, err
}

func (in *Inbox) call(fd int, data, more, control []byte, flags int) (int, error) {
	in.vectors[0].Base = unsafe.SliceData(data)
	in.vectors[0].SetLen(len(data))
	in.vectors[1].Base = unsafe.SliceData(more)
	in.vectors[1].SetLen(len(more))
	for {
		in.header = unix.Msghdr{Iov: &in.vectors[0], Control: unsafe.SliceData(control)}
		in.header.SetIovlen(len(in.vectors))
		in.header.SetControllen(len(control))
		n, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&in.header)), uintptr(flags|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC))
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			in.header, in.vectors = unix.Msghdr{}, [2]unix.Iovec{}
			return 0, e
		}
	}
}

// parse takes in the control messages. The kernel writes them well formed; what is not is passed over, with Incomplete set.
func (in *Inbox) parse(m *Message, control []byte) {
	count := 0
	for len(control) > 0 {
		if len(control) < unix.SizeofCmsghdr {
			m.Incomplete = true
			break
		}
		header := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(control)))
		length := int(header.Len)
		if length < unix.SizeofCmsghdr || length > len(control) {
			m.Incomplete = true
			break
		}
		body := control[unix.CmsgLen(0):length]
		control = control[min(unix.CmsgSpace(length-unix.CmsgLen(0)), len(control)):]
		if header.Level != unix.SOL_SOCKET {
			continue
		}
		switch header.Type {
		case unix.SCM_RIGHTS:
			for ; len(body) >= 4; body = body[4:] {
				in.descriptors[count] = int(*(*int32)(unsafe.Pointer(unsafe.SliceData(body))))
				count++
			}
		case unix.SCM_CREDENTIALS:
			if len(body) >= unix.SizeofUcred {
				m.HasCredentials = true
				m.Credentials = *(*unix.Ucred)(unsafe.Pointer(unsafe.SliceData(body)))
			}
		case unix.SCM_PIDFD:
			if len(body) >= 4 {
				// The kernel's own, so closing it does not block.
				unix.Close(int(*(*int32)(unsafe.Pointer(unsafe.SliceData(body)))))
			}
		}
	}
	m.Descriptors = in.descriptors[:count]
}

// Pending reports whether something is queued on fd, whose reading side has been shut down, and of which nobody else has a copy: whoever
// has one could deceive it (SO_PEEK_OFF). A sequenced-packet socket is given SO_PASSCRED for that: an empty message then comes with
// control data, and the end without.
func Pending(fd int) bool {
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind == unix.SOCK_SEQPACKET {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
			return true
		}
	}
	var b [1]byte
	in := inboxes.Get().(*Inbox)
	defer inboxes.Put(in)
	n, along, err := in.Peek(fd, b[:])
	return n != 0 || along || err != nil
}

// drainsAtMost bounds how many messages Drain takes out.
const drainsAtMost = 1024

// Drain takes out what is queued on fd, which has been shut down and has no descriptors in its queue.
func Drain(fd int) {
	var buf []byte
	for range drainsAtMost {
		if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err != nil || n == 0 {
			return
		}
		if buf == nil {
			buf = make([]byte, 32<<10)
		}
		_, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err != nil && err != unix.EINTR && err != unix.ECONNRESET {
			return
		}
	}
}
