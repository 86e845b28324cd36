// Package discard closes descriptors that strangers had a hand in. Closing one can block for as long as they like, so it never happens on
// the caller's time, and what one user sent holds up nobody else's.
//
// There are two kinds of them:
//
//   - Sockets of this process's own, to which strangers can send: a pipe, a control channel, a token socket. What is in the queue goes
//     with the socket, and a TCP socket in there may linger (SO_LINGER, socket(7)). An empty one is closed at once. One that is not is
//     handed to a process that exits: to an exiting process no socket lingers.
//   - What came out of a queue, and is in this process's table. A file on the sender's own FUSE makes each close(2) of it wait for the
//     sender's answer, an exiting process's too. One goroutine for each user closes what that user sent, one after the other.
//     [Check] says whether a user has too much waiting, and callers take nothing more from that one.
//
// That a queue is empty is never found out by looking into it. Whoever has a copy of the socket can have a look see nothing (SO_PEEK_OFF), and
// can have any receiving wait, whatever its flags: recvmsg(2) holds a lock of the socket while it copies to memory, which may be of a file
// on a FUSE.
package discard

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/launch"
	"github.com/guise-project/guise/internal/quota"
)

// mostHeld is how many descriptors of one user's may wait to be closed before nothing more is to be taken from that user.
const mostHeld = 256

var state struct {
	mu   sync.Mutex
	idle sync.Cond
	busy int // closers, batches and exiting processes

	slot    slot
	endings map[quota.User]*ending
	closers map[quota.User]*closer
	over    atomic.Int32 // closers that are
}

func init() { state.idle.L = &state.mu }

// Prepare takes what closing takes, for a process that may be out of descriptors, or hold those of strangers, when it comes to it.
func Prepare() {
	state.mu.Lock()
	defer state.mu.Unlock()
	state.slot.open()
	_ = launch.Prepare() // without it Start fails, and is tried again
}

// closer closes what one user sent.
type closer struct {
	queue []func()
	over  bool // more than mostHeld have waited, and not all of them have been closed since
}

// Socket takes over fd, a Unix socket that owner, a uid, or whoever has a copy of the other end, may have sent descriptors to. It shuts it
// down, closes it if nothing is in its queue, and has it closed otherwise. It does not block.
func Socket(fd int, owner uint32) {
	if fd >= 0 {
		c := Begin(fd, owner)
		c.End(owner, func() { unix.Close(fd) })
	}
}

// Closing is the closing of a socket in two steps, for one that must not be touched by number outside of a call such as
// [syscall.RawConn].Control.
type Closing struct {
	none  bool   // there is nothing in its queue
	batch *batch // that has a copy of it
}

// Begin shuts down fd, a socket of owner's as for [Socket], and looks what becomes of its queue. [Closing.End] has to follow, and does not block
// either.
func Begin(fd int, owner uint32) Closing {
	_ = unix.Shutdown(fd, unix.SHUT_RDWR) // so that the queue can only shrink
	state.mu.Lock()
	defer state.mu.Unlock()
	if state.slot.holdsNone(fd) {
		return Closing{none: true}
	}
	return entrust(fd, owner)
}

// Entrust is Begin for a socket of which nothing is known, and which is not shut down.
func Entrust(fd int, owner uint32) Closing {
	state.mu.Lock()
	defer state.mu.Unlock()
	return entrust(fd, owner)
}

func entrust(fd int, owner uint32) Closing {
	b := toEnd(quota.Of(owner), fd)
	if b != nil {
		b.closing++
	}
	return Closing{batch: b}
}

// Empty reports whether the socket has no descriptors in its queue, so that End calls closing at once.
func (c Closing) Empty() bool { return c.none }

// End calls closing, which closes the socket, when that does not block: now, or on a goroutine of owner's, a uid.
func (c Closing) End(owner uint32, closing func()) {
	switch {
	case c.none:
		closing()
	case c.batch != nil:
		closing() // not the last, and a socket waits for nothing then
		state.mu.Lock()
		defer state.mu.Unlock()
		if c.batch.closing--; c.batch.closing == 0 {
			c.batch.closed.Broadcast()
		}
	default:
		state.mu.Lock()
		defer state.mu.Unlock()
		toCloser(owner, closing)
	}
}

// Descriptor takes over fd, which owner, a uid, has sent, and closes it soon. It does not block.
func Descriptor(fd int, owner uint32) {
	if fd >= 0 {
		Descriptors([]int{fd}, owner)
	}
}

// Later calls closing, which may block, on the goroutine of owner's, a uid.
func Later(owner uint32, closing func()) {
	state.mu.Lock()
	defer state.mu.Unlock()
	toCloser(owner, closing)
}

// Descriptors is [Descriptor] for all that came with one message.
func Descriptors(fds []int, owner uint32) {
	if len(fds) == 0 {
		return
	}
	var sockets, others []int
	for _, fd := range fds {
		if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil {
			sockets = append(sockets, fd)
		} else {
			others = append(others, fd)
		}
	}
	state.mu.Lock()
	defer state.mu.Unlock()
	if len(sockets) > 0 && toEnd(quota.Of(owner), sockets...) != nil {
		for _, fd := range sockets {
			unix.Close(fd) // as in End
		}
	} else {
		others = append(others, sockets...)
	}
	for _, fd := range others {
		toCloser(owner, func() { unix.Close(fd) })
	}
}

// ErrHeld is what errors of [Check] wrap.
var ErrHeld = errors.New("descriptors that this user sent can't be closed")

// Check returns an error if owner, a uid, has so many descriptors waiting to be closed that nothing more is to be taken from that user.
func Check(owner uint32) error {
	if state.over.Load() == 0 {
		return nil
	}
	state.mu.Lock()
	defer state.mu.Unlock()
	if c := state.closers[quota.Of(owner)]; c != nil && c.over {
		return fmt.Errorf("%w: uid %d has %d waiting", ErrHeld, owner, len(c.queue))
	}
	return nil
}

// toCloser gives something to close to the owner's closer. state.mu is held.
func toCloser(owner uint32, closing func()) {
	user := quota.Of(owner)
	c := state.closers[user]
	if c == nil {
		if state.closers == nil {
			state.closers = make(map[quota.User]*closer)
		}
		c = new(closer)
		state.closers[user] = c
		state.busy++
		go c.work(user)
	}
	c.queue = append(c.queue, closing)
	if len(c.queue) > mostHeld && !c.over {
		c.over = true
		state.over.Add(1)
	}
}

// work closes everything in the queue, where what is being closed stays meanwhile.
func (c *closer) work(user quota.User) {
	state.mu.Lock()
	defer state.mu.Unlock()
	for len(c.queue) > 0 {
		closing := c.queue[0]
		state.mu.Unlock()
		closing()
		state.mu.Lock()
		c.queue[0] = nil
		c.queue = c.queue[1:]
	}
	if c.over {
		state.over.Add(-1)
	}
	delete(state.closers, user)
	done()
}

// done notes that something that Wait waits for has ended. state.mu is held.
func done() {
	if state.busy--; state.busy == 0 {
		state.idle.Broadcast()
	}
}

// Wait blocks until everything that was handed over has been closed.
func Wait() {
	state.mu.Lock()
	defer state.mu.Unlock()
	for state.busy > 0 {
		state.idle.Wait()
	}
}
