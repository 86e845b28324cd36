package announce

import (
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/token"
)

// Look is what a thread's context looks like from inside: what a client's side compares before each write.
type Look struct {
	uid, gid uint32
	groups   []uint32
	caps     token.Capabilities // all, unless the uid is 0: others bring none into a scope
}

// Take looks at the calling thread. It reuses l's memory.
func (l *Look) Take() error {
	uid, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
	gid, _, _ := syscall.RawSyscall(unix.SYS_GETEGID, 0, 0, 0)
	l.uid, l.gid = uint32(uid), uint32(gid)
	if cap(l.groups) == 0 {
		l.groups = make([]uint32, 0, 32)
	}
	for {
		l.groups = l.groups[:cap(l.groups)]
		n, _, e := syscall.RawSyscall(unix.SYS_GETGROUPS, uintptr(len(l.groups)), uintptr(unsafe.Pointer(unsafe.SliceData(l.groups))), 0)
		if e == unix.EINVAL && len(l.groups) < 1<<16 {
			l.groups = make([]uint32, 2*len(l.groups))
			continue
		}
		if e != 0 {
			l.groups = l.groups[:0]
			return e
		}
		l.groups = l.groups[:n]
		break
	}
	l.caps = token.AllCapabilities
	if l.uid != 0 {
		return nil
	}
	sets, e := capability.Get()
	if e != 0 {
		return e
	}
	l.caps = token.Capabilities{Permitted: sets.Permitted, Effective: sets.Effective}
	return nil
}

// Token returns a token of the same ids and groups.
func (l *Look) Token() (*token.Token, error) { return token.FromIDs(l.uid, l.gid, l.groups) }

// LookOf returns what a thread that wears t looks like.
func LookOf(t *token.Token, caps token.Capabilities) *Look {
	return &Look{uid: t.UID(), gid: t.GID(), groups: t.Groups(), caps: caps}
}

// CopyFrom makes l the same as o, in l's own memory.
func (l *Look) CopyFrom(o *Look) {
	groups := append(l.groups[:0], o.groups...)
	*l = *o
	l.groups = groups
}

// Equal reports whether l and o are the same context.
func (l *Look) Equal(o *Look) bool {
	return l.uid == o.uid && l.gid == o.gid && l.caps == o.caps && slices.Equal(l.groups, o.groups)
}

// Capabilities returns what the looker announces as the most that it has.
func (l *Look) Capabilities() token.Capabilities { return l.caps }
