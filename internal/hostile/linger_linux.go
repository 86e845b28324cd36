package hostile

import (
	"os"

	"golang.org/x/sys/unix"
)

// lingerSeconds is for how long a socket of [Lingering] lingers.
const lingerSeconds = 3600

// Lingering returns a TCP socket, connected on the loopback, whose last close(2) blocks until release is called: it has more to send than
// its peer takes, and lingers.
func Lingering() (fd int, release func(), err error) {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(listener)
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(listener, loopback); err != nil {
		return -1, nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(listener, 1); err != nil {
		return -1, nil, os.NewSyscallError("listen", err)
	}
	address, err := unix.Getsockname(listener)
	if err != nil {
		return -1, nil, os.NewSyscallError("getsockname", err)
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, os.NewSyscallError("socket", err)
	}
	peer := -1
	if err = os.NewSyscallError("connect", unix.Connect(fd, address)); err == nil {
		peer, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	}
	if err == nil {
		err = fill(fd)
	}
	if err != nil {
		unix.Close(fd)
		if peer >= 0 {
			unix.Close(peer)
		}
		return -1, nil, err
	}
	return fd, func() {
		if peer >= 0 {
			unix.Close(peer) // with data unread: that resets the connection
			peer = -1
		}
	}, nil
}

// fill has fd linger with more to send than goes out.
func fill(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	for block := make([]byte, 64<<10); ; {
		switch _, err := unix.Write(fd, block); err {
		case nil, unix.EINTR:
		case unix.EAGAIN:
			return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: lingerSeconds})
		default:
			return os.NewSyscallError("write", err)
		}
	}
}
