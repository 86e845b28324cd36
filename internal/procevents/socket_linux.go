package procevents

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is in the process connector's multicast group. Its memory is used again for each message.
type socket struct {
	fd     int
	buffer [128]byte
	from   unix.RawSockaddrNetlink
}

// join opens a socket that gets what the filter lets through, and nothing else from its first moment.
func join(filter []unix.SockFilter) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("opening a socket of the connector: %w", err)
	}
	if err := attach(fd, filter); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("filtering the process connector's events: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: group}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("joining the process connector's group: %w", err)
	}
	return &socket{fd: fd}, nil
}

func (s *socket) send(request []byte) error {
	return unix.Sendto(s.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive returns the next message that is queued, and false if that is not one of the kernel: a privileged process can send
// some as well. The error is EAGAIN if there is none and ENOBUFS if the kernel has dropped some.
func (s *socket) receive() (event, bool, syscall.Errno) {
	size := uint32(unsafe.Sizeof(s.from))
	// With MSG_TRUNC it returns the message's own length, and one that does not fit does not pass for a shorter one.
	n, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd),
		uintptr(unsafe.Pointer(&s.buffer)), unsafe.Sizeof(s.buffer), unix.MSG_DONTWAIT|unix.MSG_TRUNC,
		uintptr(unsafe.Pointer(&s.from)), uintptr(unsafe.Pointer(&size)))
	if e != 0 {
		return event{}, false, e
	}
	if uintptr(size) != unsafe.Sizeof(s.from) || s.from.Family != unix.AF_NETLINK || s.from.Pid != 0 || n > uintptr(len(s.buffer)) {
		return event{}, false, 0
	}
	ev, ok := parse(s.buffer[:n])
	return ev, ok, 0
}

// patience is how long await waits. The kernel queues an event before it returns from the call that the event is of, so that
// it takes this long only when nothing comes.
const patience = 500 * time.Millisecond

// await returns the first event of a kind, and [os.ErrDeadlineExceeded] if none comes.
func (s *socket) await(what uint32) (event, error) {
	for deadline := time.Now().Add(patience); ; {
		switch ev, ok, e := s.receive(); {
		case e == unix.EAGAIN:
			left := time.Until(deadline)
			if left <= 0 {
				return event{}, os.ErrDeadlineExceeded
			}
			// An error or an early end shows when receiving.
			unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(left/time.Millisecond)+1)
		case e != 0 && e != unix.ENOBUFS:
			return event{}, e
		case ok && ev.what == what:
			return ev, nil
		}
	}
}

// close leaves no number behind by which a second one could close another's descriptor.
func (s *socket) close() error {
	err := unix.Close(s.fd)
	s.fd = -1
	return err
}
