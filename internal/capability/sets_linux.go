// Package capability reads and changes the capability sets of the calling thread.
package capability

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/token"
)

// Sets are a thread's capability sets that capset(2) can change.
type Sets struct {
	Effective, Permitted, Inheritable token.CapSet
}

// Get returns the calling thread's.
func Get() (Sets, syscall.Errno) { return Of(0) }

// Of returns those of the thread tid.
func Of(tid int32) (Sets, syscall.Errno) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3, Pid: tid}
	var data [2]unix.CapUserData
	if _, _, e := syscall.RawSyscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0); e != 0 {
		return Sets{}, e
	}
	return Sets{
		Effective:   token.CapSet(data[0].Effective) | token.CapSet(data[1].Effective)<<32,
		Permitted:   token.CapSet(data[0].Permitted) | token.CapSet(data[1].Permitted)<<32,
		Inheritable: token.CapSet(data[0].Inheritable) | token.CapSet(data[1].Inheritable)<<32,
	}, 0
}

// Set makes s the calling thread's.
func (s Sets) Set() syscall.Errno {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := s.Data()
	_, _, e := syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	return e
}

// Data returns s as capset(2) takes it.
func (s Sets) Data() [2]unix.CapUserData {
	return [2]unix.CapUserData{
		{Effective: uint32(s.Effective), Permitted: uint32(s.Permitted), Inheritable: uint32(s.Inheritable)},
		{Effective: uint32(s.Effective >> 32), Permitted: uint32(s.Permitted >> 32), Inheritable: uint32(s.Inheritable >> 32)},
	}
}
