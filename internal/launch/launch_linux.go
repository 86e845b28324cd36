// Package launch starts programs without the descriptors that this process has.
//
// A child begins with a copy of its parent's descriptors, and exec(2) closes those that are close-on-exec. Closing a file can
// take as long as the file system that it is on likes (FUSE_FLUSH), and any client can pass a server a file of its own file
// system (SCM_RIGHTS). While the server has that, every program that it starts, whoever it is for, may hang before its first
// instruction. So a thread of its own, whose table of descriptors was taken apart from the process's before any client came,
// starts the programs.
package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// launcher is the thread.
var launcher struct {
	mu     sync.Mutex // held while a program is being started
	orders chan *order
	pair   int // the process's end, by which the thread gets descriptors
}

// Prepare makes the thread, if there is none yet. Programs start without the descriptors that the process gets after it, so call
// it before the first client can come.
func Prepare() error {
	launcher.mu.Lock()
	defer launcher.mu.Unlock()
	return prepare()
}

func prepare() error {
	if launcher.orders != nil {
		return nil
	}
	if err := startThread(); err != nil {
		return fmt.Errorf("making the thread that starts programs: %w", err)
	}
	return nil
}

// mostFiles is how many descriptors a message can have (SCM_MAX_FD).
const mostFiles = 253

// Start starts the program at path, as [syscall.ForkExec] does, and returns its process id: a child of this process, to be waited
// for. argv has argument 0; env is all of its environment. files are its descriptors from 0 on, and stay the caller's, who
// keeps them open until Start returns. They are sockets, pipes and devices: closing a file may hang, and the thread has copies to close.
//
// Of sys the fields that name the thread or a descriptor of the process can't be used: Pdeathsig, Ptrace, PidFD, UseCgroupFD.
// path is looked up while all other starts wait, so it is not one that a stranger can make hang.
func Start(path string, argv, env []string, files []int, sys *syscall.SysProcAttr) (pid int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("starting %s: %w", path, err)
		}
	}()
	if sys != nil && (sys.Pdeathsig != 0 || sys.Ptrace || sys.PidFD != nil || sys.UseCgroupFD) {
		return 0, fmt.Errorf("%w: Pdeathsig, Ptrace, PidFD and UseCgroupFD have no meaning on the thread that starts programs", syscall.EINVAL)
	}
	if err := checkFiles(files); err != nil {
		return 0, err
	}
	launcher.mu.Lock()
	defer launcher.mu.Unlock()
	if err := prepare(); err != nil {
		return 0, err
	}
	o := &order{path: path, argv: argv, env: env, files: len(files), sys: sys, started: make(chan struct{})}
	if err := pass(launcher.pair, files); err != nil {
		return 0, err
	}
	launcher.orders <- o
	<-o.started
	return o.pid, o.err
}

// checkFiles returns an error if closing one of files can hang.
func checkFiles(files []int) error {
	if len(files) > mostFiles {
		return fmt.Errorf("%w: a program can get %d descriptors, not %d", syscall.EINVAL, mostFiles, len(files))
	}
	for i, fd := range files {
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil {
			return fmt.Errorf("its descriptor %d: %w", i, os.NewSyscallError("fstat", err))
		}
		switch stat.Mode & unix.S_IFMT {
		case unix.S_IFSOCK, unix.S_IFIFO, unix.S_IFCHR:
		default:
			return fmt.Errorf("%w: its descriptor %d is no socket, pipe or device", syscall.EINVAL, i)
		}
	}
	return nil
}

// pass sends the thread descriptors.
func pass(to int, files []int) error {
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	// One byte, since there is no message without any.
	if err := ignoringEINTR(func() error { return unix.Sendmsg(to, []byte{0}, rights, nil, unix.MSG_NOSIGNAL) }); err != nil {
		return fmt.Errorf("passing its descriptors to the thread that starts programs: %w", os.NewSyscallError("sendmsg", err))
	}
	return nil
}

// startThread makes the thread and its socket.
func startThread() error {
	if err := initialiseRuntime(); err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	kept, err := runtimeDescriptors()
	if err == nil {
		t := &thread{pair: pair[1], orders: make(chan *order), ready: make(chan error)}
		go t.begin(append(kept, 0, 1, 2, t.pair))
		if err = <-t.ready; err == nil {
			launcher.orders, launcher.pair = t.orders, pair[0]
		}
	}
	unix.Close(pair[1]) // the thread has its own by now
	if err != nil {
		unix.Close(pair[0])
	}
	return err
}

// initialiseRuntime has the Go runtime do now what would be too late afterwards.
func initialiseRuntime() error {
	// The poller: the thread needs its descriptors.
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	r.Close()
	w.Close()
	// package os once tries out pidfds with a fork, whose child would hang as any other.
	p, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	return p.Release()
}

// thread starts programs, one after the other.
type thread struct {
	pair   int // a number in its own table
	orders chan *order
	ready  chan error
}

// begin finds a thread to be. The main thread can't be it: /proc/self/fd is of that one's table.
func (t *thread) begin(kept []int) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		t.run(kept)
		return // which ends the thread, locked as it is
	}
	locked := make(chan struct{})
	go func() {
		runtime.LockOSThread() // on another thread: this one is taken
		close(locked)
		t.run(kept)
	}()
	<-locked
	runtime.UnlockOSThread()
}

// run carries out orders. From leaveTable on numbers of descriptors mean something else here than in the rest of the process. So
// all of this is system calls on numbers: an os.File, or the runtime's poller, must never see one.
//
// The thread waits for orders in the scheduler, not in a system call, and so takes part when the ids of all threads change.
func (t *thread) run(kept []int) {
	if err := leaveTable(kept); err != nil {
		t.ready <- err
		return
	}
	t.ready <- nil
	for o := range t.orders {
		o.pid, o.err = o.start(t.pair)
		close(o.started)
	}
}

// order is a program to be started.
type order struct {
	path      string
	argv, env []string
	files     int
	sys       *syscall.SysProcAttr

	started chan struct{}
	pid     int
	err     error
}

// start starts the program with descriptors that come from pair. Its own copies it closes at once, which can't hang: closing a
// socket, a pipe or a device does nothing unless it is the last copy, and the caller has one.
func (o *order) start(pair int) (pid int, err error) {
	files, err := receive(pair, o.files)
	defer func() {
		for _, fd := range files {
			unix.Close(fd)
		}
	}()
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{Env: o.env, Sys: o.sys}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	return syscall.ForkExec(o.path, o.argv, attr)
}

var errNotPassed = errors.New("its descriptors did not reach the thread that starts programs: it may have too many (RLIMIT_NOFILE, see ulimit -n)")

// receive takes the descriptors of an order, which have been sent already.
func receive(pair, count int) (files []int, err error) {
	oob := make([]byte, unix.CmsgSpace(mostFiles*4))
	var n, flags int
	err = ignoringEINTR(func() (err error) {
		_, n, flags, _, err = unix.Recvmsg(pair, make([]byte, 1), oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("receiving its descriptors: %w", os.NewSyscallError("recvmsg", err))
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, fmt.Errorf("receiving its descriptors: %w", err)
	}
	for _, m := range messages {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			files = append(files, got...)
		}
	}
	if len(files) != count || flags&unix.MSG_CTRUNC != 0 {
		return files, errNotPassed
	}
	return files, nil
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
