package socketfile

import (
	"golang.org/x/sys/unix"
)

// Life says whether a process has a socket.
type Life int

const (
	// Unknown: this process can't find out, such as for want of permission to write to the socket.
	Unknown Life = iota
	// None: there is no such file.
	None
	// Dead: the file is there, and no process has the socket.
	Dead
	// Live: a process has it, in whatever network and mount namespace; it need not listen yet.
	Live
)

// LifeOf asks the kernel whether a process has the stream or sequenced-packet socket at path, with an error if the answer is [Unknown]. Its
// server sees nothing of that, where a connection would be a client: a datagram socket can't be connected to one of another type,
// and that is told only if a process has one.
func LifeOf(path string) (Life, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Unknown, err
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err {
	case unix.EPROTOTYPE, nil: // nil: somebody has a datagram socket there
		return Live, nil
	case unix.ECONNREFUSED:
		return Dead, nil
	case unix.ENOENT, unix.ENOTDIR:
		return None, nil
	default:
		return Unknown, err
	}
}
