package thread

import (
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scheduling is how a thread is scheduled: policy, nice value and what else sched_getattr(2) tells, and the CPUs that it may
// run on.
//
// A client may change just these of a thread that wears it, by the rules of the kernel (Linux 6.18):
//
//   - setpriority(2), sched_setattr(2) and its kin, sched_setaffinity(2): it takes an effective uid that is the thread's effective or
//     real one (check_same_owner), and permitted capabilities that include the thread's (cap_safe_nice), which whoever makes a
//     user namespace has. What raises the thread takes CAP_SYS_NICE, or the server's RLIMIT_NICE and RLIMIT_RTPRIO. All of it persists.
//   - Not ioprio_set(2), the cgroups of version 1, kill(2), fcntl(2) with F_SETOWN: they go by the real or saved uid, which is the
//     server's. Not prlimit(2): all three uids.
//   - Not /proc/PID/timerslack_ns: that takes CAP_SYS_NICE in the thread's user namespace. Not /proc/PID/oom_score_adj, autogroup and the
//     other files there: they are root's while the process is not dumpable, as it is from the first scope on.
//   - Not core scheduling (PR_SCHED_CORE), move_pages(2), migrate_pages(2), process_madvise(2), perf_event_open(2): they ask what
//     ptrace(2) does, real ids and dumpability. Not cgroups of version 2: they go by the files' owners.
//   - Other prctl(2) options, set_mempolicy(2), membarrier(2), landlock and seccomp reach the calling thread or process alone.
type scheduling struct {
	attr  unix.SchedAttr
	cpus  [16]uint64 // 1,024 CPUs
	bytes uintptr    // of cpus that the kernel filled
	more  []uint64   // in the place of cpus on machines that have more
}

// read takes the scheduling of thread tid, of the calling one for 0.
func (s *scheduling) read(tid int32) error {
	s.attr = unix.SchedAttr{}
	if _, _, e := syscall.RawSyscall6(unix.SYS_SCHED_GETATTR, uintptr(tid), uintptr(unsafe.Pointer(&s.attr)), unsafe.Sizeof(s.attr), 0, 0, 0); e != 0 {
		return failed("sched_getattr", e)
	}
	mask := s.mask()
	for {
		n, _, e := syscall.RawSyscall(unix.SYS_SCHED_GETAFFINITY, uintptr(tid), uintptr(len(mask)*8), uintptr(unsafe.Pointer(unsafe.SliceData(mask))))
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

func (s *scheduling) clone() scheduling {
	c := *s
	c.more = slices.Clone(s.more)
	return c
}

func (s *scheduling) same(o *scheduling) bool { return s.attr == o.attr && s.sameCPUs(o) }

func (s *scheduling) sameCPUs(o *scheduling) bool {
	n := s.bytes / 8
	return s.bytes == o.bytes && slices.Equal(s.mask()[:n], o.mask()[:n])
}

// impose makes thread tid, the calling one for 0, which is scheduled as now says, be scheduled as s says.
func (s *scheduling) impose(tid int32, now *scheduling) error {
	var first error
	if !s.sameCPUs(now) {
		// EINVAL: the machine or the cpuset has none of them any more, and the kernel has found others.
		if _, _, e := syscall.RawSyscall(unix.SYS_SCHED_SETAFFINITY, uintptr(tid), s.bytes, uintptr(unsafe.Pointer(unsafe.SliceData(s.mask())))); e != 0 && e != unix.EINVAL {
			first = failed("sched_setaffinity", e)
		}
	}
	if s.attr == now.attr {
		return first
	}
	attr := s.attributes(&now.attr)
	e := setAttributes(tid, &attr)
	if e == unix.EPERM && s.mayResetOnFork(&now.attr) {
		attr.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
		e = setAttributes(tid, &attr)
	}
	if e != 0 && first == nil {
		first = failed("sched_setattr", e)
	}
	return first
}

func setAttributes(tid int32, attr *unix.SchedAttr) syscall.Errno {
	_, _, e := syscall.RawSyscall(unix.SYS_SCHED_SETATTR, uintptr(tid), uintptr(unsafe.Pointer(attr)), 0)
	return e
}

// attributes are what makes sched_setattr(2) bring back s.attr where now is.
func (s *scheduling) attributes(now *unix.SchedAttr) unix.SchedAttr {
	attr := s.attr
	// The kernel tells the clamps without these flags, and takes them with them alone. One that has no clamps refuses the flags.
	if attr.Util_min != now.Util_min {
		attr.Flags |= unix.SCHED_FLAG_UTIL_CLAMP_MIN
	}
	if attr.Util_max != now.Util_max {
		attr.Flags |= unix.SCHED_FLAG_UTIL_CLAMP_MAX
	}
	return attr
}

// mayResetOnFork reports whether the thread has got SCHED_FLAG_RESET_ON_FORK, and may keep it: anybody may set it and CAP_SYS_NICE alone
// takes it off, but on a thread of an ordinary policy and a nice value of 0 or more it does nothing to what the thread starts.
func (s *scheduling) mayResetOnFork(now *unix.SchedAttr) bool {
	ordinary := s.attr.Policy == unix.SCHED_NORMAL || s.attr.Policy == unix.SCHED_BATCH || s.attr.Policy == unix.SCHED_IDLE
	return now.Flags&^s.attr.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0 && ordinary && s.attr.Nice >= 0
}
