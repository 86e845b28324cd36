//go:build !386 && !arm

// The plain names of these system calls are those of 16-bit ids on 386 and arm.

package thread

import (
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/token"
)

// credentials is all of a thread's credentials that entering and leaving may touch.
type credentials struct {
	uids, gids ids
	groups     []uint32
	caps       capability.Sets
	securebits uintptr
}

// ids are a thread's three user or group ids.
type ids struct{ real, effective, saved uint32 }

func (i *ids) read(call uintptr, name string) error {
	_, _, e := syscall.RawSyscall(call, uintptr(unsafe.Pointer(&i.real)), uintptr(unsafe.Pointer(&i.effective)), uintptr(unsafe.Pointer(&i.saved)))
	if e != 0 {
		return failed(name, e)
	}
	return nil
}

func (i ids) set(call uintptr, name string) error {
	if _, _, e := syscall.RawSyscall(call, uintptr(i.real), uintptr(i.effective), uintptr(i.saved)); e != 0 {
		return failed(name, e)
	}
	return nil
}

func (i *ids) readUIDs() error { return i.read(unix.SYS_GETRESUID, "getresuid") }
func (i *ids) readGIDs() error { return i.read(unix.SYS_GETRESGID, "getresgid") }
func (i ids) setUIDs() error   { return i.set(unix.SYS_SETRESUID, "setresuid") }
func (i ids) setGIDs() error   { return i.set(unix.SYS_SETRESGID, "setresgid") }

// onlyEffective are ids that leave the real and the saved one as they are.
func onlyEffective(id uint32) ids { return ids{unchanged, id, unchanged} }

// holdsSwitching reports whether set has what changing ids and groups takes.
func holdsSwitching(set token.CapSet) bool {
	return set.Has(token.CapSetuid) && set.Has(token.CapSetgid)
}

// read fills c with the calling thread's credentials. It reuses the memory of c.groups.
func (c *credentials) read() error {
	if err := c.uids.readUIDs(); err != nil {
		return err
	}
	if err := c.gids.readGIDs(); err != nil {
		return err
	}
	var err error
	if c.groups, err = readGroups(c.groups); err != nil {
		return err
	}
	if c.caps, err = readCapabilities(0); err != nil {
		return err
	}
	if c.uids.real != 0 && c.uids.effective != 0 && c.uids.saved != 0 {
		// Without a uid 0 the bits change nothing: see effectiveAfter, which then never sees one go or come.
		c.securebits = 0
		return nil
	}
	bits, _, e := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_SECUREBITS, 0, 0)
	if e != 0 {
		return failed("prctl(PR_GET_SECUREBITS)", e)
	}
	c.securebits = bits
	return nil
}

// readGroups returns the calling thread's supplementary groups in buf, grown if it has to be.
func readGroups(buf []uint32) ([]uint32, error) {
	if cap(buf) == 0 {
		buf = make([]uint32, 0, 32)
	}
	for {
		buf = buf[:cap(buf)]
		n, _, e := syscall.RawSyscall(unix.SYS_GETGROUPS, uintptr(len(buf)), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), 0)
		switch {
		case e == unix.EINVAL && len(buf) < 1<<16:
			buf = make([]uint32, 2*len(buf))
		case e != 0:
			return buf[:0], failed("getgroups", e)
		default:
			return buf[:n], nil
		}
	}
}

func setGroups(groups []uint32) error {
	_, _, e := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
	if e != 0 {
		return failed("setgroups", e)
	}
	return nil
}

// unchanged is what setresuid(2) and setresgid(2) take for "leave it".
const unchanged = ^uint32(0)

// readCapabilities returns the capabilities of a thread, of the calling one for 0.
func readCapabilities(tid int32) (capability.Sets, error) {
	sets, e := capability.Of(tid)
	if e != 0 {
		return sets, failed("capget", e)
	}
	return sets, nil
}

func setCapabilities(sets capability.Sets) error {
	if e := sets.Set(); e != 0 {
		return failed("capset", e)
	}
	return nil
}

// securebits of capabilities(7).
const (
	noSetuidFixup = 1 << 2
	keepCaps      = 1 << 4
)

// effectiveAfter returns the effective set that the kernel leaves after the effective uid changes from one id to another
// (capabilities(7), "Effect of user ID changes on capabilities").
func (c *credentials) effectiveAfter(effective token.CapSet, from, to uint32) token.CapSet {
	switch {
	case c.securebits&noSetuidFixup != 0:
		return effective
	case from == 0 && to != 0:
		return 0
	case from != 0 && to == 0:
		return c.caps.Permitted
	}
	return effective
}

// losesPermitted reports whether the kernel would drop the permitted set, and with it the way back, when the effective uid
// becomes uid: it does when none of the three uids stays 0.
func (c *credentials) losesPermitted(uid uint32) bool {
	hadRoot := c.uids.real == 0 || c.uids.effective == 0 || c.uids.saved == 0
	hasRoot := c.uids.real == 0 || uid == 0 || c.uids.saved == 0
	return hadRoot && !hasRoot && c.securebits&(noSetuidFixup|keepCaps) == 0
}

func (c *credentials) sameIDs(t *token.Token, groups []uint32) bool {
	return c.uids.effective == t.UID() && c.gids.effective == t.GID() && slices.Equal(c.groups, groups)
}

func threadID() int32 {
	id, _, _ := syscall.RawSyscall(unix.SYS_GETTID, 0, 0, 0)
	return int32(id)
}
