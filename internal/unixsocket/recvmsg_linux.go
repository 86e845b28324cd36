// Package unixsocket is recvmsg(2) on Unix sockets, without the garbage and the address that the general wrappers make.
package unixsocket

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Inbox is the memory that one reader receives with. The zero value is ready.
type Inbox struct {
	header  unix.Msghdr
	vectors [2]unix.Iovec
}

// Receive receives into data, and what does not fit there into more, which may be nil. Control data goes into control; where
// that is nil or too small the kernel sets MSG_CTRUNC. It never waits; EINTR is retried.
func (in *Inbox) Receive(fd int, data, more, control []byte, flags int) (n, controlLen, gotFlags int, err error) {
	in.vectors[0].Base = unsafe.SliceData(data)
	in.vectors[0].SetLen(len(data))
	in.vectors[1].Base = unsafe.SliceData(more)
	in.vectors[1].SetLen(len(more))
	in.header = unix.Msghdr{Iov: &in.vectors[0], Control: unsafe.SliceData(control)}
	in.header.SetIovlen(len(in.vectors))
	in.header.SetControllen(len(control))
	for {
		r, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&in.header)), uintptr(flags|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC))
		if e == unix.EINTR {
			continue
		}
		n, controlLen, gotFlags = int(r), int(in.header.Controllen), int(in.header.Flags)
		in.header, in.vectors = unix.Msghdr{}, [2]unix.Iovec{}
		if e != 0 {
			return 0, 0, 0, e
		}
		return n, controlLen, gotFlags, nil
	}
}

// Pending reports whether something is queued on fd, whose reading side has been shut down. A sequenced-packet socket is given
// SO_PASSCRED for that: an empty message then comes with control data, and the end without.
func Pending(fd int) bool {
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind == unix.SOCK_SEQPACKET {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
			return true
		}
	}
	var b [1]byte
	var in Inbox
	n, _, flags, err := in.Receive(fd, b[:], nil, nil, unix.MSG_PEEK)
	return n != 0 || flags&unix.MSG_CTRUNC != 0 || err != nil
}

// Drain throws away what is queued on fd, whose reading side has been shut down. Descriptors in the queue are closed on the
// way, which can block.
func Drain(fd int) {
	buf := make([]byte, 32<<10)
	var in Inbox
	for Pending(fd) {
		if _, _, _, err := in.Receive(fd, buf, nil, nil, 0); err != nil && err != unix.ECONNRESET {
			return
		}
	}
}
