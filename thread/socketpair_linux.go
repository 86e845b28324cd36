//go:build !386 && !arm

package thread

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/token"
)

// SocketpairAs is socketpair(2) for sequenced packets with close-on-exec, made by a thread that has the effective ids and groups of t for
// that moment, so that the kernel takes them for its maker's (SO_PEERCRED). It is no scope.
//
// Nothing comes in between: signals are blocked, and the goroutine can't be preempted. So calls that change the ids of all threads of
// the process (Go's and libc's setuid and the like), which end the process if threads disagree, wait until it is over.
//
// The error wraps [ErrPrivilege] if the process may not become t, and [ErrChangedMeanwhile] if such a call came before it.
func SocketpairAs(t *token.Token) (near, far int, err error) {
	if err := t.Wearable(); err != nil {
		return -1, -1, err
	}
	// What it may be, its owner can do to this thread what it can in a scope.
	w := Worn{locked: isLocked()}
	runtime.LockOSThread()
	w.tid = threadID()
	if w.outer, w.baseline = known(w.tid); w.outer == nil {
		err = w.restScheduled()
	}
	if err == nil {
		var m *moment
		if m, err = prepareMoment(t); err == nil {
			near, far, err = m.make(t)
		}
		if w.outer == nil {
			if spoiled := w.restoreScheduling(); spoiled != nil {
				if err == nil {
					unix.Close(near)
					unix.Close(far)
				}
				err = spoiled
			}
			sweepLater()
		}
	}
	if err != nil {
		near, far = -1, -1
		if _, ok := err.(*spoiledError); ok {
			return near, far, err // the goroutine stays locked
		}
	}
	runtime.UnlockOSThread()
	return near, far, err
}

// prepareMoment is for the thread on which the moment is to be.
func prepareMoment(t *token.Token) (*moment, error) {
	var was credentials
	if err := was.read(); err != nil {
		return nil, err
	}
	m := makeMoment(t, &was)
	if m == nil {
		return nil, ErrPrivilege
	}
	return m, nil
}

// make is [SocketpairAs] from there on.
func (m *moment) make(t *token.Token) (near, far int, err error) {
	m.pass()
	switch {
	case m.lost:
		stop(fmt.Sprintf("a thread that was uid %d for a moment can't be restored: %v", t.UID(), m.errno))
	case m.changed:
		return -1, -1, ErrChangedMeanwhile
	case m.errno != 0:
		return -1, -1, failed("making a socketpair as another user", m.errno)
	}
	return int(m.pair[0]), int(m.pair[1]), nil
}

// moment is a sequence of system calls that is prepared before, because nothing may happen in between.
type moment struct {
	enter, leave []rawCall
	pair         [2]int32
	errno        syscall.Errno
	lost         bool
	// What the thread has to be like when it begins: what leave makes it again.
	was, now struct {
		uids, gids ids
		caps       [2]unix.CapUserData
	}
	wasGroups, nowGroups []uint32
	changed              bool

	header         unix.CapUserHeader
	raised, before [2]unix.CapUserData
	groups         []uint32
}

type rawCall struct{ number, a, b, c uintptr }

// makeMoment returns nil if the thread may not become t. What it returns points into itself, so it has to lie on the heap.
//
//go:noinline
func makeMoment(t *token.Token, was *credentials) *moment {
	m := &moment{header: unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, groups: t.AppendGroups(nil)}
	may := holdsSwitching(was.caps.Permitted)
	if !may && !slices.Equal(was.groups, m.groups) || was.losesPermitted(t.UID()) {
		return nil
	}
	m.was.uids, m.was.gids, m.was.caps = was.uids, was.gids, was.caps.Data()
	m.wasGroups, m.nowGroups = was.groups, make([]uint32, len(was.groups)+1)
	raised := was.caps
	raised.Effective = raised.Permitted
	m.raised, m.before = raised.Data(), was.caps.Data()
	raise := rawCall{unix.SYS_CAPSET, uintptr(unsafe.Pointer(&m.header)), uintptr(unsafe.Pointer(&m.raised)), 0}
	if may {
		m.enter = append(m.enter, raise,
			rawCall{unix.SYS_SETGROUPS, uintptr(len(m.groups)), uintptr(unsafe.Pointer(unsafe.SliceData(m.groups))), 0})
		m.leave = append(m.leave, raise,
			rawCall{unix.SYS_SETGROUPS, uintptr(len(was.groups)), uintptr(unsafe.Pointer(unsafe.SliceData(was.groups))), 0})
	}
	// The permitted capabilities stay, and with them the way back, whichever order the ids come in.
	m.enter = append(m.enter,
		rawCall{unix.SYS_SETRESGID, uintptr(unchanged), uintptr(t.GID()), uintptr(unchanged)},
		rawCall{unix.SYS_SETRESUID, uintptr(unchanged), uintptr(t.UID()), uintptr(unchanged)})
	m.leave = append(m.leave,
		rawCall{unix.SYS_SETRESGID, uintptr(unchanged), uintptr(was.gids.effective), uintptr(unchanged)},
		rawCall{unix.SYS_SETRESUID, uintptr(unchanged), uintptr(was.uids.effective), uintptr(unchanged)},
		rawCall{unix.SYS_CAPSET, uintptr(unsafe.Pointer(&m.header)), uintptr(unsafe.Pointer(&m.before)), 0})
	return m
}

// pass does it. Functions that are nosplit are where the Go runtime can't stop a goroutine but by a signal.
//
//go:nosplit
//go:norace
func (m *moment) pass() {
	var all, mask uint64 = ^uint64(0), 0
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&mask)), unsafe.Sizeof(mask), 0, 0)
	if m.changed = !m.asItWas(); m.changed {
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, unsafe.Sizeof(mask), 0, 0)
		return
	}
	for i := range m.enter {
		if m.errno = m.enter[i].do(); m.errno != 0 {
			break
		}
	}
	if m.errno == 0 {
		_, _, m.errno = syscall.RawSyscall6(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0, uintptr(unsafe.Pointer(&m.pair)), 0, 0)
	}
	for i := range m.leave {
		if e := m.leave[i].do(); e != 0 {
			m.errno, m.lost = e, true
			break
		}
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, unsafe.Sizeof(mask), 0, 0)
}

// asItWas looks again: until the signals were blocked, somebody could change the ids of all threads.
//
//go:nosplit
//go:norace
func (m *moment) asItWas() bool {
	_, _, e1 := syscall.RawSyscall(unix.SYS_GETRESUID, uintptr(unsafe.Pointer(&m.now.uids.real)), uintptr(unsafe.Pointer(&m.now.uids.effective)), uintptr(unsafe.Pointer(&m.now.uids.saved)))
	_, _, e2 := syscall.RawSyscall(unix.SYS_GETRESGID, uintptr(unsafe.Pointer(&m.now.gids.real)), uintptr(unsafe.Pointer(&m.now.gids.effective)), uintptr(unsafe.Pointer(&m.now.gids.saved)))
	_, _, e3 := syscall.RawSyscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(&m.header)), uintptr(unsafe.Pointer(&m.now.caps)), 0)
	n, _, e4 := syscall.RawSyscall(unix.SYS_GETGROUPS, uintptr(len(m.nowGroups)), uintptr(unsafe.Pointer(unsafe.SliceData(m.nowGroups))), 0)
	if e1|e2|e3|e4 != 0 || m.now != m.was || int(n) != len(m.wasGroups) {
		return false
	}
	for i := range m.wasGroups {
		if m.nowGroups[i] != m.wasGroups[i] {
			return false
		}
	}
	return true
}

//go:nosplit
//go:norace
func (c *rawCall) do() syscall.Errno {
	_, _, e := syscall.RawSyscall(c.number, c.a, c.b, c.c)
	return e
}
