package announce

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// channelEnd is the client's end of a control channel. It blocks, so that the runtime doesn't poll it: else each thing that the server does with
// its own end would wake this process for nothing, which costs a short connection more than all that it sends. Only who has to wait
// has it polled. Whatever is done with it is done with MSG_DONTWAIT.
type channelEnd struct {
	file *os.File
	raw  syscall.RawConn

	mu       sync.Mutex
	polled   *os.File // the same end, once somebody had to wait
	deadline time.Time
	closed   bool
	woken    bool // who waits for something to read has to look again: polled's deadline for that has passed
}

// newChannelEnd takes a descriptor over.
func newChannelEnd(fd int) (*channelEnd, error) {
	e := &channelEnd{file: os.NewFile(uintptr(fd), "control channel")}
	var err error
	if e.raw, err = e.file.SyscallConn(); err != nil {
		e.file.Close()
		return nil, err
	}
	return e, nil
}

// control calls f with the descriptor.
func (e *channelEnd) control(f func(fd int)) error {
	return e.raw.Control(func(fd uintptr) { f(int(fd)) })
}

// await calls f until it is done, each time when there may be something to read, or room to write, and at most until the deadline. One
// goroutine at a time may wait to read.
func (e *channelEnd) await(reading bool, f func(fd int) (done bool)) error {
	for {
		if err := e.awaitOnce(reading, f); err == nil || !reading || !e.wasWoken() {
			return err
		}
	}
}

func (e *channelEnd) awaitOnce(reading bool, f func(fd int) (done bool)) error {
	e.mu.Lock()
	deadline := e.deadline
	e.mu.Unlock()
	if !deadline.IsZero() && !time.Now().Before(deadline) {
		return os.ErrDeadlineExceeded
	}
	done := false
	if err := e.control(func(fd int) { done = f(fd) }); err != nil || done {
		return err
	}
	polled, err := e.poll()
	if err != nil {
		return err
	}
	raw, err := polled.SyscallConn()
	if err != nil {
		return err
	}
	wait := raw.Write
	if reading {
		wait = raw.Read
	}
	return wait(func(fd uintptr) bool { return f(int(fd)) })
}

// wake has who waits to read call its function once more.
func (e *channelEnd) wake() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.polled != nil && e.polled.SetReadDeadline(time.Unix(1, 0)) == nil {
		e.woken = true
	}
}

// wasWoken undoes wake.
func (e *channelEnd) wasWoken() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	woken := e.woken
	e.woken = false
	return woken && e.polled != nil && e.polled.SetReadDeadline(e.deadline) == nil
}

// poll has the end polled.
func (e *channelEnd) poll() (*os.File, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.polled != nil || e.closed {
		return e.polled, e.closedErr()
	}
	fd, err := -1, error(nil)
	controlErr := e.control(func(own int) { fd, err = unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 0) })
	if controlErr != nil {
		return nil, controlErr
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	e.polled = os.NewFile(uintptr(fd), e.file.Name())
	return e.polled, e.polled.SetDeadline(e.deadline)
}

func (e *channelEnd) closedErr() error {
	if e.closed {
		return os.ErrClosed
	}
	return nil
}

// setDeadline bounds how long await waits. The zero time is no bound.
func (e *channelEnd) setDeadline(t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deadline = t
	switch {
	case e.polled == nil:
		return e.closedErr()
	case e.woken:
		return e.polled.SetWriteDeadline(t) // and that for reading when the reader has woken
	}
	return e.polled.SetDeadline(t)
}

func (e *channelEnd) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.polled != nil {
		e.polled.Close()
		e.polled = nil
	}
	return e.file.Close()
}
