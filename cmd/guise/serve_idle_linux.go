package main

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
)

// idleness notices when nothing has passed on a pipe for long. The command reads and writes the client's socket itself, and the kernel
// counts no bytes of a Unix socket. But it wakes those who wait on the socket each time something has come, and each
// time the other end has taken something, whoever reads it then. That is not so while more than a quarter of what the socket may hold waits for
// the other end; what that takes then shows in the length of the queue, by whole buffers of the kernel's. A nil idleness never notices.
type idleness struct {
	limit   time.Duration
	began   time.Time
	last    atomic.Int64 // when something passed last, in nanoseconds since began
	noticed chan struct{}

	conn    *guise.Conn
	woken   bool // waits on the socket
	stopped chan struct{}
	running sync.WaitGroup
}

func newIdleness(limit time.Duration) *idleness {
	if limit <= 0 {
		return nil
	}
	return &idleness{limit: limit, began: time.Now(), noticed: make(chan struct{}), stopped: make(chan struct{})}
}

// passed says that something has passed.
func (i *idleness) passed() {
	if i != nil {
		i.last.Store(int64(time.Since(i.began)))
	}
}

// over returns a channel that is closed when nothing has passed for too long.
func (i *idleness) over() <-chan struct{} {
	if i == nil {
		return nil
	}
	return i.noticed
}

// watch begins to look. Nobody in this process may write to conn until stop is called, if wake is set.
func (i *idleness) watch(conn *guise.Conn, wake bool) {
	if i == nil {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return // it is closed
	}
	i.conn, i.woken = conn, wake
	i.passed()
	if wake {
		i.running.Go(func() {
			// Go waits for changes of the socket (EPOLLET) and calls this at each one. A wake-up for what has come shows here too,
			// because the socket is writable then.
			_ = raw.Write(func(uintptr) bool {
				i.passed()
				return false
			})
		})
	}
	i.running.Go(func() { i.look(func(f func(fd uintptr)) { _ = raw.Control(f) }) })
}

// queues is how much waits in a socket.
type queues struct{ in, out int }

// look ends when it has noticed.
func (i *idleness) look(control func(func(fd uintptr))) {
	pause := max(i.limit/8, time.Millisecond)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	var before queues
	for {
		var now queues
		control(func(fd uintptr) {
			now.in, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ)
			now.out, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		})
		if now != before {
			before = now
			i.passed()
		}
		left := i.limit - (time.Since(i.began) - time.Duration(i.last.Load()))
		if left <= 0 {
			close(i.noticed)
			return
		}
		timer.Reset(min(pause, left))
		select {
		case <-timer.C:
		case <-i.stopped:
			return
		}
	}
}

// stop stops looking.
func (i *idleness) stop() {
	if i == nil || i.conn == nil {
		return
	}
	close(i.stopped)
	if i.woken {
		_ = i.conn.SetWriteDeadline(time.Unix(1, 0))
	}
	i.running.Wait()
	if i.woken {
		_ = i.conn.SetWriteDeadline(time.Time{})
	}
}
