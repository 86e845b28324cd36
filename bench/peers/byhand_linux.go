package main

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/role"
)

// byHand is what Go programs do today: they ask the socket who is there, lock the thread and give it the client's groups and file system
// ids. It checks nothing that guise checks; what the thread does is the client's for files only.
var byHand = protocol{
	serve: func(dir string, ready func(), until func()) error {
		l, err := net.Listen("unix", filepath.Join(dir, "byhand"))
		if err != nil {
			return err
		}
		defer l.Close()
		if err := os.Chmod(filepath.Join(dir, "byhand"), 0o666); err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go answerByHand(c.(*net.UnixConn))
			}
		}()
		ready()
		until()
		return nil
	},
	dial: func(dir string) (connection, error) {
		c, err := net.Dial("unix", filepath.Join(dir, "byhand"))
		if err != nil {
			return nil, err
		}
		return stream{c}, nil
	},
}

func answerByHand(c *net.UnixConn) {
	defer c.Close()
	who, groups, err := peer(c)
	if err != nil {
		return
	}
	name := make([]byte, role.LongestName)
	for {
		n, err := c.Read(name)
		if err != nil {
			return
		}
		b, err := readByHand(who, groups, string(name[:n]))
		if err != nil {
			return
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// peer returns who connected: SO_PEERCRED and SO_PEERGROUPS of unix(7).
func peer(c *net.UnixConn) (who *unix.Ucred, groups []uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		if who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return
		}
		groups = make([]uint32, 64)
		length := uint32(len(groups)) * 4
		_, _, errno := syscall.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(unsafe.SliceData(groups))), uintptr(unsafe.Pointer(&length)), 0)
		if errno != 0 {
			err = os.NewSyscallError("getsockopt", errno)
			return
		}
		groups = groups[:length/4]
	})
	if controlErr != nil {
		return nil, nil, controlErr
	}
	return who, groups, err
}

func readByHand(who *unix.Ucred, groups []uint32, name string) ([]byte, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := setGroups(groups); err != nil {
		return nil, err
	}
	syscall.RawSyscall(unix.SYS_SETFSGID, uintptr(who.Gid), 0, 0)
	syscall.RawSyscall(unix.SYS_SETFSUID, uintptr(who.Uid), 0, 0)
	b, err := os.ReadFile(name)
	syscall.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
	syscall.RawSyscall(unix.SYS_SETFSGID, 0, 0, 0)
	if err := setGroups(nil); err != nil {
		role.Fatal(err)
	}
	return b, err
}

// setGroups sets this thread's groups only; those of the syscall package set all threads'.
func setGroups(groups []uint32) error {
	_, _, errno := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
	if errno != 0 {
		return os.NewSyscallError("setgroups", errno)
	}
	return nil
}
