package hostile

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Option is something that whoever has a copy of a socket can change of it at any time, also when it is another process's.
type Option struct {
	Name string
	Set  func(fd int) error
}

// Options returns one for each change that could make a reader, or a closer, of a Unix socket see something else than there is, get more
// than it asked for, or wait.
func Options() []Option {
	number := func(option, value int) func(int) error {
		return func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, value) }
	}
	flag := func(flag int) func(int) error {
		return func(fd int) error {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if err == nil {
				_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|flag)
			}
			return err
		}
	}
	return []Option{
		{"SO_PEEK_OFF", number(unix.SO_PEEK_OFF, 1<<20)},
		{"SO_PASSCRED off", number(unix.SO_PASSCRED, 0)},
		{"SO_PASSCRED", number(unix.SO_PASSCRED, 1)},
		{"SO_PASSPIDFD", number(unix.SO_PASSPIDFD, 1)},
		{"SO_PASSSEC", number(unix.SO_PASSSEC, 1)},
		{"SO_TIMESTAMP", number(unix.SO_TIMESTAMP, 1)},
		{"SO_TIMESTAMPNS", number(unix.SO_TIMESTAMPNS, 1)},
		{"SO_RCVLOWAT", number(unix.SO_RCVLOWAT, 1<<20)},
		{"SO_RCVTIMEO", func(fd int) error {
			return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: lingerSeconds})
		}},
		{"SO_SNDTIMEO", func(fd int) error {
			return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: lingerSeconds})
		}},
		{"SO_RCVBUF", number(unix.SO_RCVBUF, 1)},
		{"SO_SNDBUF", number(unix.SO_SNDBUF, 1)},
		{"SO_LINGER", func(fd int) error {
			return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: lingerSeconds})
		}},
		{"O_NONBLOCK off", func(fd int) error { return unix.SetNonblock(fd, false) }},
		{"O_NONBLOCK", func(fd int) error { return unix.SetNonblock(fd, true) }},
		{"O_ASYNC", flag(unix.O_ASYNC)},
		{"a filter that drops all", dropAll},
		{"a locked filter", func(fd int) error {
			if err := dropAll(fd); err != nil {
				return err
			}
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1)
		}},
	}
}

// dropAll attaches a filter to fd that lets nothing arrive.
func dropAll(fd int) error {
	program := [1]unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: unsafe.SliceData(program[:])})
}

// SetAll sets every option of [Options], one after the other. An error names the first that could not be set.
func SetAll(fd int) error {
	for _, o := range Options() {
		if err := o.Set(fd); err != nil {
			return fmt.Errorf("%s: %w", o.Name, err)
		}
	}
	return nil
}
