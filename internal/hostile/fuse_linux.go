package hostile

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// FUSE is a mounted file system that answers what it has to for one file to be opened, and then nothing that it is asked to do with it: a
// close(2) of a descriptor of that file waits until [FUSE.Close].
type FUSE struct {
	// File is the path of the file.
	File string

	dir    string
	device int
	stop   [2]int // a pipe
	served chan struct{}

	mu      sync.Mutex
	flushes int
}

// MountFUSE mounts one on the directory dir. It takes root, or root of a user namespace with a mount namespace.
func MountFUSE(dir string) (*FUSE, error) {
	f := &FUSE{File: filepath.Join(dir, "file"), dir: dir, served: make(chan struct{})}
	if err := unix.Pipe2(f.stop[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	var err error
	if f.device, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		f.closePipe()
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other", f.device, os.Getuid(), os.Getgid())
	if err := unix.Mount("guise-test", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		f.closePipe()
		unix.Close(f.device)
		return nil, fmt.Errorf("mounting a FUSE on %s: %w", dir, err)
	}
	go f.serve()
	return f, nil
}

func (f *FUSE) closePipe() {
	unix.Close(f.stop[0])
	unix.Close(f.stop[1])
}

// Waiting returns how many are waiting for the answer to a FUSE_FLUSH.
func (f *FUSE) Waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flushes
}

// Close ends the file system. Whoever waits for it gets an error.
func (f *FUSE) Close() error {
	_, _ = unix.Write(f.stop[1], []byte{0})
	<-f.served
	f.closePipe()
	unix.Close(f.device) // the last: that ends the connection
	return os.NewSyscallError("umount2", unix.Unmount(f.dir, unix.MNT_DETACH))
}

// What linux/fuse.h says.
const (
	opLookup   = 1
	opForget   = 2
	opGetattr  = 3
	opOpen     = 14
	opFlush    = 25
	opInit     = 26
	opAccess   = 34
	inHeader   = 40
	outHeader  = 16
	attrLength = 88
	fileNode   = 2
)

// serve answers until the connection ends.
func (f *FUSE) serve() {
	defer close(f.served)
	buf := make([]byte, 1<<20)
	wait := []unix.PollFd{{Fd: int32(f.device), Events: unix.POLLIN}, {Fd: int32(f.stop[0]), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(wait, -1); err != nil && err != unix.EINTR || wait[1].Revents != 0 {
			return
		}
		n, err := unix.Read(f.device, buf)
		switch {
		case err == unix.EINTR, err == unix.EAGAIN, err == unix.ENOENT: // ENOENT: the request was interrupted
			continue
		case err != nil || n < inHeader:
			return
		}
		f.answer(buf[:n])
	}
}

func (f *FUSE) answer(request []byte) {
	op := binary.NativeEndian.Uint32(request[4:])
	unique := binary.NativeEndian.Uint64(request[8:])
	node := binary.NativeEndian.Uint64(request[16:])
	reply := func(errno syscall.Errno, body []byte) {
		b := binary.NativeEndian.AppendUint32(nil, uint32(outHeader+len(body)))
		b = binary.NativeEndian.AppendUint32(b, uint32(-int32(errno)))
		b = binary.NativeEndian.AppendUint64(b, unique)
		_, _ = unix.Write(f.device, append(b, body...))
	}
	switch op {
	case opInit:
		b := binary.NativeEndian.AppendUint32(nil, 7)
		b = binary.NativeEndian.AppendUint32(b, 31)
		reply(0, append(b, make([]byte, 56)...))
	case opLookup:
		entry := binary.NativeEndian.AppendUint64(nil, fileNode)
		entry = append(entry, make([]byte, 8+8+8+4+4)...)
		reply(0, append(entry, attributes(fileNode)...))
	case opGetattr:
		reply(0, append(make([]byte, 16), attributes(node)...))
	case opOpen:
		reply(0, make([]byte, 16))
	case opAccess:
		reply(0, nil)
	case opForget:
	case opFlush:
		f.mu.Lock()
		f.flushes++
		f.mu.Unlock()
	default:
		reply(unix.ENOSYS, nil)
	}
}

// attributes returns a struct fuse_attr.
func attributes(node uint64) []byte {
	b := make([]byte, attrLength)
	binary.NativeEndian.PutUint64(b, node)
	mode := uint32(unix.S_IFREG | 0o666)
	if node == 1 {
		mode = unix.S_IFDIR | 0o777
	}
	binary.NativeEndian.PutUint32(b[60:], mode)
	binary.NativeEndian.PutUint32(b[64:], 1)
	return b
}
