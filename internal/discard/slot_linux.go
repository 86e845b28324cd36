package discard

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
)

// slot is a place in the descriptor table of which proc(5) is asked how many descriptors the queue of the socket in it has: "scm_fds" of
// /proc/self/fdinfo. The file is opened once, and read anew for each socket that is put there.
type slot struct {
	fd    int // the place; 0 before the first use
	empty int // what is in it meanwhile
	info  int // the file
}

// open makes the slot. It reports false if it can't be had.
func (s *slot) open() bool {
	if s.fd != 0 {
		return true
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	info, err := unix.Open(fmt.Sprintf("/proc/self/fdinfo/%d", pair[0]), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
		return false
	}
	s.fd, s.empty, s.info = pair[0], pair[1], info
	_ = unix.Dup3(s.empty, s.fd, unix.O_CLOEXEC)
	return true
}

// holdsNone reports whether fd, a socket that has been shut down, has no descriptors in its queue. It does not block: it makes no call that
// takes a lock of the socket's which others can hold, as receiving does.
func (s *slot) holdsNone(fd int) bool {
	if !s.open() || unix.Dup3(fd, s.fd, unix.O_CLOEXEC) != nil {
		return false
	}
	none := s.withoutDescriptors()
	_ = unix.Dup3(s.empty, s.fd, unix.O_CLOEXEC) // not the last of the socket's: the caller has fd
	return none
}

func (s *slot) withoutDescriptors() bool {
	var b [256]byte
	n, err := unix.Pread(s.info, b[:], 0)
	return err == nil && bytes.Contains(b[:n], []byte("scm_fds: 0\n"))
}
