package discard

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/launch"
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

// batch is sockets that wait for a process to end with, in the queue of a socket pair: not in this process's table.
type batch struct {
	near, far int
	messages  int
	count     int // of the descriptors in them
	starting  bool
	closing   int // sockets of which it has a copy, and which this process has not closed yet
	closed    sync.Cond
}

const (
	// fillFor is how long a batch is filled before its process is started, if it is not enough of one before.
	fillFor = 20 * time.Millisecond
	// enough messages are for a process. The queue has room for some 270.
	enough = 100
	// tryAgain is how long to wait before another attempt to start a process.
	tryAgain = 200 * time.Millisecond
	// mostEnding is how many such processes there may be at once.
	mostEnding = 4
)

// state.mu guards these.
var (
	ending  int // processes that have not ended
	passing int // descriptors that are in batches and with those processes
)

// mostPassing is how many descriptors there may be in batches. Who has more under way than RLIMIT_NOFILE can send none any more, unless
// privileged (unix(7), ETOOMANYREFS), and so could start no process, for commands neither.
var mostPassing = sync.OnceValue(func() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 256
	}
	return int(min(limit.Cur/4, 1<<20))
})

// toEnd puts copies of sockets, at most as many as a message can bring, into the batch, which it returns; nil if that can't be. The caller
// closes them, before state.mu is unlocked or with batch.closing counted. state.mu is held.
func toEnd(fds ...int) *batch {
	b := state.batch
	if b == nil {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil
		}
		b = &batch{near: pair[0], far: pair[1]}
		b.closed.L = &state.mu
	}
	if passing+len(fds) > mostPassing() || unix.Sendmsg(b.near, []byte{0}, unix.UnixRights(fds...), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) != nil {
		// The batch is full, this user has too many descriptors under way, or they are nested too deeply.
		if state.batch == nil {
			unix.Close(b.near)
			unix.Close(b.far)
		}
		return nil
	}
	if state.batch == nil {
		state.batch = b
		state.busy++
		time.AfterFunc(fillFor, end)
	}
	b.count += len(fds)
	passing += len(fds)
	if b.messages++; b.messages == enough {
		go end()
	}
	return b
}

// end starts a process for the batch. While that can't be, the batch stays.
func end() {
	state.mu.Lock()
	defer state.mu.Unlock()
	b := state.batch
	if b == nil || b.starting {
		return
	}
	if ending >= mostEnding {
		time.AfterFunc(tryAgain, end)
		return
	}
	b.starting = true
	ending++
	state.mu.Unlock()
	pid, err := launch.Start("/proc/self/exe", []string{argument0}, nil, []int{b.far}, &syscall.SysProcAttr{Setsid: true})
	state.mu.Lock()
	if err != nil {
		b.starting = false
		ending--
		time.AfterFunc(tryAgain, end)
		return
	}
	// The process has it by now, and holds it until near is closed.
	state.batch = nil
	for b.closing > 0 {
		b.closed.Wait()
	}
	unix.Close(b.far)
	unix.Close(b.near)
	state.mu.Unlock()
	for err = unix.EINTR; err == unix.EINTR; { // ECHILD if the program waits for every child
		_, err = unix.Wait4(pid, nil, 0, nil)
	}
	state.mu.Lock()
	ending--
	passing -= b.count
	done()
}
