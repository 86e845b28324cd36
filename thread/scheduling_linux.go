package thread

import (
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scheduling is how a thread is scheduled: policy, nice value and what else sched_getattr(2) tells, and the CPUs that it may
// run on. A client may change these of a thread that has its effective uid (setpriority(2), sched_setaffinity(2)), and the
// thread would keep them.
type scheduling struct {
	attr  unix.SchedAttr
	cpus  [16]uint64 // 1,024 CPUs
	bytes uintptr    // of cpus that the kernel filled
	more  []uint64   // in the place of cpus on machines that have more
}

func (s *scheduling) read() error {
	s.attr = unix.SchedAttr{}
	if _, _, e := syscall.RawSyscall6(unix.SYS_SCHED_GETATTR, 0, uintptr(unsafe.Pointer(&s.attr)), unsafe.Sizeof(s.attr), 0, 0, 0); e != 0 {
		return failed("sched_getattr", e)
	}
	mask := s.mask()
	for {
		n, _, e := syscall.RawSyscall(unix.SYS_SCHED_GETAFFINITY, 0, uintptr(len(mask)*8), uintptr(unsafe.Pointer(unsafe.SliceData(mask))))
		if e == unix.EINVAL && len(mask) < 1<<13 {
			s.more = make([]uint64, 2*len(mask))
			mask = s.more
			continue
		}
		if e != 0 {
			return failed("sched_getaffinity", e)
		}
		s.bytes = n
		return nil
	}
}

func (s *scheduling) mask() []uint64 {
	if s.more != nil {
		return s.more
	}
	return s.cpus[:]
}

func (s *scheduling) sameCPUs(o *scheduling) bool {
	n := s.bytes / 8
	return s.bytes == o.bytes && slices.Equal(s.mask()[:n], o.mask()[:n])
}

// restore makes the calling thread be scheduled as s says if it is not.
func (s *scheduling) restore() error {
	var now scheduling
	if err := now.read(); err != nil {
		return err
	}
	if !s.sameCPUs(&now) {
		if _, _, e := syscall.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, s.bytes, uintptr(unsafe.Pointer(unsafe.SliceData(s.mask())))); e != 0 {
			return failed("sched_setaffinity", e)
		}
	}
	if s.attr != now.attr {
		if _, _, e := syscall.RawSyscall(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(&s.attr)), 0); e != 0 {
			return failed("sched_setattr", e)
		}
	}
	return nil
}
