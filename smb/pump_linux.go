package smb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cloudsoda/go-smb2"
	"golang.org/x/sys/unix"
)

const (
	// chunk is how much is read and written at once: what one credit is good for.
	chunk = 1 << 16
	// longestMessage is what smbd's framing has room for.
	longestMessage = chunk - 1
	// delivery is how long what was written before the Close may take to arrive, and leaving how long a WRITE that is under way when the
	// server has ended the pipe.
	delivery = 5 * time.Second
	leaving  = 2 * time.Second
)

// pump carries data between the socket that a guise.Conn has the other end of and a pipe on another machine, until one of
// them ends.
type pump struct {
	session *session
	pipe    *smb2.File
	end     *net.UnixConn
	watch   *os.File // the same socket, to wait for its end on
	message bool

	mu  sync.Mutex
	why error
}

// newSocketpair returns the ends of a pair: the connection's, and the pump's with a second descriptor.
func newSocketpair(message bool) (theirs, ours *net.UnixConn, watch *os.File, err error) {
	kind := unix.SOCK_STREAM
	if message {
		kind = unix.SOCK_SEQPACKET
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("making a pair of sockets: %w", err)
	}
	if message {
		for _, fd := range fds {
			// A message that does not fit can't be handed on. That it is more than the system's default is no matter.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 2*chunk)
		}
	}
	second, err := unix.FcntlInt(uintptr(fds[1]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, nil, fmt.Errorf("making a pair of sockets: %w", err)
	}
	watch = os.NewFile(uintptr(second), "watch")
	ours, err = unixConn(fds[1])
	if err != nil {
		unix.Close(fds[0])
	} else if theirs, err = unixConn(fds[0]); err != nil {
		ours.Close()
	}
	if err != nil {
		watch.Close()
		return nil, nil, nil, err
	}
	return theirs, ours, watch, nil
}

// unixConn takes over a socket.
func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "socketpair")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// because sets why the data ended, unless it is set.
func (p *pump) because(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == nil {
		p.why = err
	}
}

// reason returns why the data ended: nil if the server ended it.
func (p *pump) reason() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.why
}

// outcome is how one direction ended.
type outcome int

const (
	sourceEnded  outcome = iota // the writer has no more
	serverEnded                 // the pipe's server closed it
	nobodyReads                 // the connection's end does not read any more
	sessionEnded                // the session broke; why says how
)

// run carries until there is nothing more to carry. Nothing is left behind when it returns.
func (p *pump) run() {
	in, out, closed := make(chan outcome, 1), make(chan outcome, 1), make(chan struct{})
	go func() { in <- p.guarded(p.incoming) }()
	go func() { out <- p.guarded(p.outgoing) }()
	go func() {
		p.waitClosed()
		close(closed)
	}()

	var bound <-chan time.Time
	var isClosed, written, broken bool
	reading := in
	for done := false; !done; {
		select {
		case how := <-reading:
			reading = nil
			broken = how == sessionEnded
			done = how != nobodyReads
		case how := <-out:
			written, out = true, nil
			// Where the server takes no more it may still have said something.
			if how == sessionEnded {
				done, broken = true, true
			} else if how == serverEnded {
				p.shutdown(unix.SHUT_RD)
			}
		case <-closed:
			isClosed, closed = true, nil
			timer := time.NewTimer(delivery)
			defer timer.Stop()
			bound = timer.C
		case <-bound:
			done, broken = true, true
		}
		done = done || isClosed && written
	}

	// This also ends a reading of the socket, but not a WRITE that is under way to a server that does not answer.
	p.shutdown(unix.SHUT_RDWR)
	if !broken && out != nil {
		select {
		case <-out:
			out = nil
		case <-time.After(leaving):
		}
	}
	p.session.cut()
	p.drain()
	p.end.Close()
	if reading != nil {
		<-reading
	}
	if out != nil {
		<-out
	}
	if closed != nil {
		<-closed
	}
	p.watch.Close()
}

// guarded calls f, and takes a panic for the end of the session: go-smb2's, about what a server says, or because the session has ended
// while it waited.
func (p *pump) guarded(f func() outcome) (how outcome) {
	defer func() {
		if v := recover(); v != nil {
			p.because(fmt.Errorf("%w: what it says can't be read: %v", ErrProtocol, v))
			how = sessionEnded
		}
	}()
	return f()
}

// incoming has one READ outstanding at all times at which the connection's end takes more.
func (p *pump) incoming() outcome {
	buf := make([]byte, chunk+1)[:chunk] // too large for the stack, where all of it would be resident
	for {
		n, err := p.pipe.ReadAt(buf, 0)
		if n > 0 {
			if _, err := p.end.Write(buf[:n]); err != nil {
				return p.notTaken(err)
			}
		}
		if err != nil {
			return p.classify(err)
		}
	}
}

// notTaken says what it means that the connection's end did not take what came.
func (p *pump) notTaken(err error) outcome {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
		return nobodyReads
	}
	p.because(fmt.Errorf("%w: handing on what came: %w", ErrCut, err))
	return sessionEnded
}

// outgoing writes what the connection's end writes. In message mode each read of the socket is one message.
func (p *pump) outgoing() outcome {
	for {
		buf, n := p.taken()
		if n == 0 {
			return sourceEnded
		}
		how, ended := p.forward(buf[:n])
		chunks.Put(buf)
		if ended {
			return how
		}
	}
}

// chunks has memory for what is on its way to servers, which a connection that is idle does without.
var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// taken waits for what the connection's end writes next, and returns it in one of chunks; there is none at the end.
func (p *pump) taken() (buf *[chunk]byte, n int) {
	raw, err := p.end.SyscallConn()
	if err != nil {
		return nil, 0
	}
	err = raw.Read(func(fd uintptr) bool {
		buf = chunks.Get().(*[chunk]byte)
		var err error
		for err = unix.EINTR; err == unix.EINTR; {
			n, err = unix.Read(int(fd), buf[:])
		}
		if n > 0 {
			return true
		}
		chunks.Put(buf)
		buf, n = nil, 0
		return err != unix.EAGAIN
	})
	if err != nil {
		return nil, 0
	}
	return buf, n
}

func (p *pump) forward(data []byte) (how outcome, ended bool) {
	if p.message && len(data) > longestMessage {
		p.because(fmt.Errorf("a message of more than %d bytes can't go over the network", longestMessage))
		return sessionEnded, true
	}
	if _, err := p.pipe.WriteAt(data, 0); err != nil {
		return p.classify(err), true
	}
	return 0, false
}

// classify tells the end of the pipe from the end of everything.
func (p *pump) classify(err error) outcome {
	if err == io.EOF {
		return serverEnded
	}
	code, ok := statusOf(err)
	switch {
	case !ok:
		if errors.Is(err, context.Canceled) {
			err = errEnded
		}
		why := p.session.failed(err)
		if !errors.Is(why, ErrProtocol) && !errors.Is(why, ErrEncryption) && !errors.Is(why, ErrCut) {
			why = fmt.Errorf("%w: %w", ErrCut, why)
		}
		p.because(why)
		return sessionEnded
	case code == statusPipeBroken || code == statusPipeDisconnected || code == statusPipeClosing || code == statusEndOfFile ||
		code == statusConnectionDisc || code == statusConnectionReset:
		return serverEnded
	case code == statusBufferOverflow:
		p.because(fmt.Errorf("%w: a message of more than %d bytes", ErrProtocol, longestMessage))
	default:
		p.because(fmt.Errorf("%w: the server says %v", ErrCut, code))
	}
	return sessionEnded
}

// waitClosed returns once the connection is closed, or this end is. That its writing side is shut down does not show, as SMB's pipes have
// no such thing.
func (p *pump) waitClosed() {
	raw, err := p.watch.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(ready, 0)
		return err != nil && err != unix.EINTR || n > 0 && ready[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
}

func (p *pump) control(f func(fd int)) {
	var raw syscall.RawConn
	raw, err := p.end.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

func (p *pump) shutdown(how int) { p.control(func(fd int) { _ = unix.Shutdown(fd, how) }) }

// drain takes what nobody will: closing with it would take what was sent last away from the connection's end.
func (p *pump) drain() {
	p.control(func(fd int) {
		buf := make([]byte, chunk)
		for {
			n, err := unix.Read(fd, buf)
			if n <= 0 && err != unix.EINTR {
				return
			}
		}
	})
}
