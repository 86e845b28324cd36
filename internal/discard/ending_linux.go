package discard

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/launch"
	"github.com/guise-project/guise/internal/quota"
)

// argument0 is the argument 0 by which this program's executable knows that it has been started to end with sockets in its hands.
const argument0 = "guise: closing what was left"

func init() {
	if len(os.Args) > 0 && os.Args[0] == argument0 {
		hold()
	}
}

// hold waits until the starting process has let go of what it handed over, and exits. The kernel closes it then, on the time of a process
// that is exiting, to which no socket lingers (inet_release of the kernel asks for PF_EXITING).
func hold() {
	p := []unix.PollFd{{Fd: 0}} // for POLLHUP, which needs no asking
	for {
		if n, err := unix.Poll(p, -1); err != unix.EINTR && (n != 0 || err != nil) {
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0) // os.Exit may do more
		}
	}
}

// batch is sockets of one user's that wait for a process to end with, in the queue of a socket pair: not in this process's table. Even there
// an ending process can be stuck (a dirty file of the user's own FUSE, written back by its last close): so nobody else's are with them.
type batch struct {
	near, far int
	messages  int
	count     int // of the descriptors in them, and in what is parked in it
	closing   int // sockets of which it has a copy, and which this process has not closed yet
	closed    sync.Cond
}

// ending is what a user has with ending processes.
type ending struct {
	filling   *batch // nil if there is none
	full      *batch // of full ones, each a message: nil if there is none
	processes int    // that have not ended
	set       bool   // a timer runs
}

const (
	// fillFor is how long a batch is filled before its process is started, if it is not full before.
	fillFor = 5 * time.Millisecond
	// enough messages are in a batch. The queue has room for some 270.
	enough = 200
	// tryAgain is how long to wait before another attempt to start a process, or while as many as may have not ended.
	tryAgain = 200 * time.Millisecond
	// mostEnding is how many such processes one user may have at once.
	mostEnding = 2
)

// passing is how many descriptors are in batches and with ending processes; state.mu guards it.
var passing int

const (
	// calmPassing is how many may be as long as there is another way. A user with more than 2,024 Unix sockets under way waits in each
	// sending of one for the kernel to look for cycles among all that are (wait_for_unix_gc).
	calmPassing = 1500
)

// mostPassing is how many may be. Who has more under way than RLIMIT_NOFILE can send none any more, unless privileged (unix(7), ETOOMANYREFS),
// and so could start no process, for commands neither.
var mostPassing = sync.OnceValue(func() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 256
	}
	if os.Geteuid() == 0 {
		return 1 << 30
	}
	return int(min(limit.Cur/4, 1<<20))
})

// maySend reports whether so many more may be under way. Beyond calmPassing only those of a user may whose goroutine has enough to close. state.mu is
// held.
func maySend(user quota.User, n int) bool {
	if passing+n <= min(calmPassing, mostPassing()) {
		return true
	}
	c := state.closers[user]
	return c != nil && c.over && passing+n <= mostPassing()
}

func newBatch() *batch {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	b := &batch{near: pair[0], far: pair[1]}
	b.closed.L = &state.mu
	return b
}

// add sends copies of fds. It reports false if that can't be.
func (b *batch) add(count int, fds ...int) bool {
	if unix.Sendmsg(b.near, []byte{0}, unix.UnixRights(fds...), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) != nil {
		return false // they are nested too deeply, or this process's user has too many under way
	}
	b.messages++
	b.count += count
	return true
}

// close lets go of both ends. What is in the queue is somewhere else, or nothing is.
func (b *batch) close() {
	unix.Close(b.far)
	unix.Close(b.near)
}

// toEnd puts copies of sockets, at most as many as a message can bring, into a batch of a user's, which it returns; nil if that can't be.
// The caller closes them, before state.mu is unlocked or with batch.closing counted. state.mu is held.
func toEnd(user quota.User, fds ...int) *batch {
	e := state.endings[user]
	if e == nil {
		e = new(ending)
	}
	if !maySend(user, len(fds)) {
		return nil
	}
	if e.filling != nil && e.filling.messages >= enough {
		e.park()
	}
	b := e.filling
	if b == nil {
		if b = newBatch(); b == nil {
			return nil
		}
	}
	if !b.add(len(fds), fds...) {
		if e.filling == nil {
			b.close()
		}
		return nil
	}
	passing += len(fds)
	if e.filling == nil {
		e.filling = b
		state.busy++
	}
	if state.endings == nil {
		state.endings = make(map[quota.User]*ending)
	}
	state.endings[user] = e
	if !e.set {
		e.set = true
		time.AfterFunc(fillFor, func() { end(user) })
	}
	return b
}

// park puts the batch that is being filled into the one of full ones: while a user's processes are stuck it takes no more than two descriptors
// of this process's. state.mu is held.
func (e *ending) park() {
	b := e.filling
	for b.closing > 0 {
		b.closed.Wait()
	}
	if e.filling != b { // a process has it now
		return
	}
	if e.keep(b) {
		e.filling = nil
	}
}

// keep puts b, to which nothing is added any more, among the full ones, and reports whether it could. state.mu is held.
func (e *ending) keep(b *batch) bool {
	if e.full == nil || e.full.messages >= enough {
		full := newBatch()
		if full == nil {
			return false
		}
		if e.full != nil && !full.take(e.full) {
			full.close()
			return false
		}
		if e.full == nil {
			state.busy++
		}
		e.full = full
	}
	if !e.full.take(b) {
		return false
	}
	done()
	return true
}

// take makes all of another batch one message of this one.
func (b *batch) take(other *batch) bool {
	if !b.add(other.count, other.far) {
		return false
	}
	other.close()
	return true
}

// end starts processes for what a user has. While that can't be, it stays.
func end(user quota.User) {
	state.mu.Lock()
	defer state.mu.Unlock()
	e := state.endings[user]
	for e.processes < mostEnding {
		b := e.full
		if b == nil {
			b = e.filling
		}
		if b == nil {
			e.set = false
			if e.processes == 0 {
				delete(state.endings, user)
			}
			return
		}
		if b == e.full {
			e.full = nil
		} else {
			e.filling = nil
		}
		e.processes++
		if !b.end(user, e) {
			// It goes back to where it can wait.
			e.processes--
			if !e.keep(b) {
				go b.closeHere()
			}
			break
		}
	}
	time.AfterFunc(tryAgain, func() { end(user) })
}

// end starts a process for a batch that nothing is added to any more. It reports false if that can't be. state.mu is held, and unlocked
// meanwhile.
func (b *batch) end(user quota.User, e *ending) bool {
	for b.closing > 0 {
		b.closed.Wait()
	}
	state.mu.Unlock()
	pid, err := launch.Start("/proc/self/exe", []string{argument0}, nil, []int{b.far}, &syscall.SysProcAttr{Setsid: true})
	if err != nil {
		state.mu.Lock()
		return false
	}
	// The process has it by now, and holds it until near is closed.
	b.close()
	state.mu.Lock()
	go func() {
		for err := error(unix.EINTR); err == unix.EINTR; { // ECHILD if the program waits for every child
			_, err = unix.Wait4(pid, nil, 0, nil)
		}
		state.mu.Lock()
		defer state.mu.Unlock()
		passing -= b.count
		e.processes--
		if e.processes == 0 && e.filling == nil && e.full == nil && !e.set {
			delete(state.endings, user)
		}
		done()
	}()
	return true
}

// closeHere closes a batch that there is no process and no other place for.
func (b *batch) closeHere() {
	b.close()
	state.mu.Lock()
	defer state.mu.Unlock()
	passing -= b.count
	done()
}
