// Package launch starts programs from a thread that has a descriptor table of its own, with none of the process's descriptors in it.
//
// A process that holds descriptors of strangers can't simply fork. The child has copies of them all, and exec(2) closes those: for a file
// on a FUSE of the stranger's own that asks the stranger (FUSE_FLUSH), who need not answer. The child would hang before its first
// instruction, whomever it is for, and couldn't be killed.
package launch

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// launcher is the thread.
var launcher struct {
	mu       sync.Mutex
	running  bool
	near     int // what is sent here arrives in the thread's table
	requests chan request
}

type request struct {
	path      string
	argv, env []string
	files     int // that have been sent
	sys       *syscall.SysProcAttr
	started   chan result
}

type result struct {
	pid int
	err error
}

// mostFiles is how many a program can be given (SCM_MAX_FD of the kernel).
const mostFiles = 253

// Prepare makes the thread. Call it before the process has anything of a stranger's. It makes one thread, however often it is called; an
// error says why there is none.
func Prepare() error {
	launcher.mu.Lock()
	defer launcher.mu.Unlock()
	return prepare()
}

func prepare() error {
	if launcher.running {
		return nil
	}
	// The first use of a process in package os forks one, to see whether that can be done with pidfds.
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		self.Release()
	}
	// The runtime makes its poller when it first needs one. The thread has to have that too: it may collect garbage, and polls then.
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a thread that starts programs: %w", err)
	}
	r.Close()
	w.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making a thread that starts programs: socketpair: %w", err)
	}
	requests, ready := make(chan request), make(chan error)
	go run(pair[1], requests, ready)
	err = <-ready
	unix.Close(pair[1]) // the thread has its own
	if err != nil {
		unix.Close(pair[0])
		return fmt.Errorf("making a thread that starts programs: %w", err)
	}
	launcher.near, launcher.requests, launcher.running = pair[0], requests, true
	return nil
}

// Start starts the program at path with argv, argument 0 among them, and env, as a child of this process. Its descriptors 0, 1, … are copies
// of files, which stay the caller's. sys must not ask for a pidfd or a parent-death signal: both would be the thread's. It returns once the
// program has been executed.
func Start(path string, argv, env []string, files []int, sys *syscall.SysProcAttr) (pid int, err error) {
	if len(files) > mostFiles {
		return 0, fmt.Errorf("starting %s with %d descriptors: %w", path, len(files), unix.EINVAL)
	}
	launcher.mu.Lock()
	if err := prepare(); err != nil {
		launcher.mu.Unlock()
		return 0, err
	}
	r := request{path, argv, env, len(files), sys, make(chan result)}
	if len(files) > 0 {
		for err = unix.EINTR; err == unix.EINTR; {
			err = unix.Sendmsg(launcher.near, []byte{0}, unix.UnixRights(files...), nil, unix.MSG_NOSIGNAL)
		}
		if err != nil {
			launcher.mu.Unlock()
			return 0, fmt.Errorf("starting %s: handing over its descriptors: %w", path, err)
		}
	}
	launcher.requests <- r
	launcher.mu.Unlock()
	started := <-r.started
	return started.pid, started.err
}

// run is what the thread does. Descriptors are numbers here, and no os.File: another thread would take them for its own.
func run(far int, requests <-chan request, ready chan<- error) {
	runtime.LockOSThread() // for good, and the runtime makes no thread out of one that is locked
	if err := ownTable(far); err != nil {
		ready <- err
		return // and the runtime ends the thread
	}
	ready <- nil
	for r := range requests {
		files, err := receive(far, r.files)
		pid := 0
		if err == nil {
			pid, err = syscall.ForkExec(r.path, r.argv, &syscall.ProcAttr{Env: r.env, Files: files, Sys: r.sys})
		}
		for _, fd := range files {
			unix.Close(int(fd)) // not the last: the caller has them
		}
		r.started <- result{pid, err}
	}
}

// ownTable gives the calling thread a table of its own, with standard input, output and error, what the runtime polls with, and far.
func ownTable(far int) error {
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return fmt.Errorf("unshare(CLONE_FILES): %w", err)
	}
	const own = "/proc/thread-self/fd"
	dir, err := unix.Open(own, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", own, err)
	}
	defer unix.Close(dir)
	names, err := entries(dir)
	if err != nil {
		return fmt.Errorf("reading %s: %w", own, err)
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= 2 || fd == far || fd == dir {
			continue
		}
		var to [64]byte
		n, err := unix.Readlinkat(dir, name, to[:])
		if err != nil {
			return fmt.Errorf("readlink %s/%s: %w", own, name, err)
		}
		switch string(to[:n]) {
		case "anon_inode:[eventpoll]", "anon_inode:[eventfd]":
		default:
			unix.Close(fd)
		}
	}
	return nil
}

func entries(dir int) (names []string, err error) {
	buf := make([]byte, 8<<10)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// receive returns the descriptors of a program, of which n have been sent.
func receive(far, n int) (files []uintptr, err error) {
	if n == 0 {
		return nil, nil
	}
	var data [1]byte
	control := make([]byte, unix.CmsgSpace(4*mostFiles))
	controlLen, flags := 0, 0
	for err = unix.EINTR; err == unix.EINTR; {
		_, controlLen, flags, _, err = unix.Recvmsg(far, data[:], control, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("receiving its descriptors: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlLen])
	for i := range messages {
		fds, rightsErr := unix.ParseUnixRights(&messages[i])
		if err == nil {
			err = rightsErr
		}
		for _, fd := range fds {
			files = append(files, uintptr(fd))
		}
	}
	if err == nil && (len(files) != n || flags&unix.MSG_CTRUNC != 0) {
		err = fmt.Errorf("receiving its descriptors: %d of %d arrived", len(files), n)
	}
	return files, err
}
