package main

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ownNamespaces has a process be root of a user namespace of the caller's own.
func ownNamespaces(flags uintptr) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | flags,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   unix.SIGKILL,
	}
}

// inNamespace is an attack by a process in a user namespace of its own, as `unshare -Ur` makes one. It goes on for as long as the
// user's own process does.
func inNamespace(name, role string, flags uintptr) attack {
	return attack{name, func(h *hostileOne) error {
		cmd := exec.Command("/proc/self/exe", "--role", role, string(h.besieged))
		cmd.SysProcAttr = ownNamespaces(flags)
		cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
		cmd.Dir = "/"
		return cmd.Run()
	}}
}

var threadAttacks = []attack{
	inNamespace("schedules the server's threads from a user namespace", "hostile scheduler", 0),
	{"asks for scopes", func(h *hostileOne) error { return h.holdScope() }},
	{"asks for scopes at the same time", func(h *hostileOne) error { return h.holdScope() }},
	{"schedules the server's threads", func(h *hostileOne) error { return h.schedule() }},
}

// holdScope has the library server be in a scope of this user's.
func (h *hostileOne) holdScope() error {
	c := rawConnect(h.library())
	defer c.close()
	c.open("hold x\n")
	read(c.pipe)
	return nil
}

// beScheduler is the role of who is root of a user namespace.
func beScheduler(args []string) error {
	h := &hostileOne{besieged: besieged(args[0])}
	go endWithInput()
	for range 2 {
		go func() {
			for {
				if guarded(h.holdScope) != nil {
					time.Sleep(time.Millisecond)
				}
			}
		}()
	}
	for {
		if guarded(h.schedule) != nil {
			time.Sleep(time.Millisecond)
		}
	}
}

// schedule does to each of the library server's threads what the kernel lets a user do to threads that wear its id, and tries the rest.
func (h *hostileOne) schedule() error {
	server := h.pidOf(h.library())
	tasks, err := os.ReadDir(proc(server, "task"))
	if err != nil {
		return err
	}
	var first unix.CPUSet
	first.Set(0)
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			continue
		}
		_ = unix.Setpriority(unix.PRIO_PROCESS, tid, 19)
		_ = unix.SchedSetaffinity(tid, &first)
		for _, policy := range []int{unix.SCHED_BATCH, unix.SCHED_IDLE} {
			var parameter int32
			_, _, _ = unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(tid), uintptr(policy), uintptr(unsafe.Pointer(&parameter)))
		}
		// UTIL_CLAMP, as low as can be.
		clamp := unix.SchedAttr{Size: unix.SizeofSchedAttr, Flags: unix.SCHED_FLAG_KEEP_ALL | unix.SCHED_FLAG_UTIL_CLAMP}
		_ = unix.SchedSetAttr(tid, &clamp, 0)
		const ioprioIdle = 3 << 13
		_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, 1, uintptr(tid), ioprioIdle)
		_ = unix.Tgkill(server, tid, 34)
		_ = unix.Tgkill(server, tid, unix.SIGSTOP)
		_ = unix.PtraceSeize(tid)
	}
	_ = unix.Kill(server, 34)
	return nil
}
