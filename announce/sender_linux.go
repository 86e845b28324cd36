package announce

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sender is the client's end of a control channel. Announce may be called by one goroutine at a time, the other methods by many.
type Sender struct {
	file     *os.File
	raw      syscall.RawConn
	sequence uint64
}

// Open makes a control channel with hello queued on it and hands the far end to the server over pipe, a connected Unix socket
// to which nothing was written yet. The descriptors are the sender's.
func Open(pipe syscall.RawConn, hello Hello) (*Sender, error) {
	near, far, err := socketpair()
	if err != nil {
		return nil, fmt.Errorf("making the control channel: %w", err)
	}
	defer unix.Close(far)
	if err := unix.SetNonblock(near, true); err != nil {
		unix.Close(near)
		return nil, fmt.Errorf("making the control channel: %w", err)
	}
	s := &Sender{file: os.NewFile(uintptr(near), "control channel")}
	if s.raw, err = s.file.SyscallConn(); err == nil {
		err = send(s.raw, hello.encode(), nil)
	}
	if err == nil {
		err = send(pipe, []byte{PrefaceByte}, unix.UnixRights(far))
	}
	if err != nil {
		s.file.Close()
		return nil, fmt.Errorf("sending the preface: %w", err)
	}
	return s, nil
}

// Announce tells the server that the calling thread's context, which look is of, is the client's from the place at on. The
// calling goroutine has to be locked to its thread. It waits while the server has not received what came before, until the
// deadline.
func (s *Sender) Announce(look *Look, c Context) error {
	near, far, err := socketpair()
	if err != nil {
		return fmt.Errorf("making a token socket: %w", err)
	}
	defer unix.Close(near)
	defer unix.Close(far)

	s.sequence++
	c.Sequence = s.sequence
	c.Capabilities = look.caps
	claim := unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: look.uid, Gid: look.gid})
	return send(s.raw, c.encode(), append(claim, unix.UnixRights(far)...))
}

// Answer returns what the server has said, an InForce or a Refusal; nil if it has said nothing yet. At the end of the channel
// it returns io.EOF.
func (s *Sender) Answer() (any, error) {
	var m any
	var recvErr error
	if err := s.raw.Control(func(fd uintptr) { m, recvErr = receiveAnswer(int(fd)) }); err != nil {
		return nil, err
	}
	return m, recvErr
}

// WaitAnswer is Answer, but waits for one until the deadline.
func (s *Sender) WaitAnswer() (any, error) {
	var m any
	var recvErr error
	err := s.raw.Read(func(fd uintptr) bool {
		m, recvErr = receiveAnswer(int(fd))
		return m != nil || recvErr != nil
	})
	if err != nil {
		return nil, err
	}
	return m, recvErr
}

// SetDeadline bounds how long Announce and WaitAnswer wait. The zero time is no bound.
func (s *Sender) SetDeadline(t time.Time) error { return s.file.SetDeadline(t) }

// Close closes the client's end.
func (s *Sender) Close() error { return s.file.Close() }

func socketpair() (near, far int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	return p[0], p[1], err
}

// send sends one message, waiting as long as raw's deadline allows.
func send(raw syscall.RawConn, message, control []byte) error {
	var sendErr error
	err := raw.Write(func(fd uintptr) bool {
		for {
			sendErr = unix.Sendmsg(int(fd), message, control, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if sendErr != unix.EINTR {
				return sendErr != unix.EAGAIN
			}
		}
	})
	if err != nil {
		return err
	}
	return sendErr
}
