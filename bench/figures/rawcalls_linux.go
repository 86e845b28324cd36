package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/role"
)

// rawCalls are the calls without which no server gets to the client's ids and back, and nothing else: no look at what was
// there, no check of what it led to.
type rawCalls struct {
	server, client role.IDs
	capsets        bool // a server that is not root has to put its capabilities down and take them up again by itself
	header         unix.CapUserHeader
	own, none      [2]unix.CapUserData
}

func newRawCalls(client role.IDs) (*rawCalls, error) {
	r := &rawCalls{client: client, header: unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}}
	r.server.UID, r.server.GID = uint32(os.Geteuid()), uint32(os.Getegid())
	groups, err := os.Getgroups()
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		r.server.Groups = append(r.server.Groups, uint32(g))
	}
	r.capsets = r.server.UID != 0
	if err := unix.Capget(&r.header, &r.own[0]); err != nil {
		return nil, err
	}
	r.none = r.own
	r.none[0].Effective, r.none[1].Effective = 0, 0
	return r, nil
}

// side is the calls' side of the comparison, on one locked thread.
func (r *rawCalls) side(n int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range n {
		r.enter()
		r.leave()
	}
}

// try shows that the calls do what they are compared for.
func (r *rawCalls) try() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r.enter()
	inside := os.Geteuid()
	r.leave()
	if inside != int(r.client.UID) || os.Geteuid() != int(r.server.UID) {
		return fmt.Errorf("the raw calls led to uid %d and back to %d", inside, os.Geteuid())
	}
	return nil
}

const unchanged = ^uintptr(0)

func (r *rawCalls) enter() {
	setGroups(r.client.Groups)
	syscall.RawSyscall(unix.SYS_SETRESGID, unchanged, uintptr(r.client.GID), unchanged)
	syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(r.client.UID), unchanged)
	if r.capsets {
		r.capset(&r.none)
	}
}

func (r *rawCalls) leave() {
	if r.capsets {
		r.capset(&r.own)
	}
	syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(r.server.UID), unchanged)
	syscall.RawSyscall(unix.SYS_SETRESGID, unchanged, uintptr(r.server.GID), unchanged)
	setGroups(r.server.Groups)
}

func setGroups(groups []uint32) {
	syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
}

func (r *rawCalls) capset(data *[2]unix.CapUserData) {
	syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&r.header)), uintptr(unsafe.Pointer(data)), 0)
}

// schedulingCheck is the library's check of the scheduling: the same two calls as thread/scheduling_linux.go makes on the way in
// and again on the way out of a scope whose client changed nothing.
type schedulingCheck struct {
	attr unix.SchedAttr
	cpus [16]uint64
}

func (c *schedulingCheck) look() {
	syscall.RawSyscall6(unix.SYS_SCHED_GETATTR, 0, uintptr(unsafe.Pointer(&c.attr)), unsafe.Sizeof(c.attr), 0, 0, 0)
	syscall.RawSyscall(unix.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(c.cpus), uintptr(unsafe.Pointer(&c.cpus)))
}

// withCheck is side with the calls of the scheduling check where the library makes them: what they cost depends on what was
// called before.
func (r *rawCalls) withCheck(n int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var check schedulingCheck
	for range n {
		check.look()
		r.enter()
		r.leave()
		check.look()
	}
}
