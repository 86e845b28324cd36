package hostile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Opcode is what the kernel asks of a FUSE file system (fuse(4), linux/fuse.h).
type Opcode uint32

// The opcodes that a file system of this package can leave unanswered.
const (
	Lookup  Opcode = 1
	Getattr Opcode = 3
	Open    Opcode = 14
	Read    Opcode = 15
	Release Opcode = 18
	Flush   Opcode = 25 // close(2)
	Opendir Opcode = 27
	Access  Opcode = 34
)

// Those that it answers in any case.
const (
	forget      Opcode = 2
	setattr     Opcode = 4
	write       Opcode = 16
	statfs      Opcode = 17
	initialise  Opcode = 26
	readdir     Opcode = 28
	releasedir  Opcode = 29
	interrupt   Opcode = 36
	batchForget Opcode = 42
)

// FUSE is a file system whose server does not answer everything, so that who asks hangs until [FUSE.Close]. It has a directory
// named "directory", and in both that and the root a file of any other name: zeros, executable and everybody's.
type FUSE struct {
	dir   string
	file  *os.File // of /dev/fuse
	never []Opcode
	ended chan struct{}

	mu    sync.Mutex
	stuck []Opcode
}

// MountFUSE mounts one at dir, which takes CAP_SYS_ADMIN in the mount namespace, and /dev/fuse. Every user can use it. The
// process that mounts it does not use it itself: it would wait for its own server.
func MountFUSE(dir string, never ...Opcode) (*FUSE, error) {
	const device = "/dev/fuse"
	// Non-blocking: os.File waits by the poller then, and Close ends the wait.
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: device, Err: err}
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other", fd, os.Geteuid(), os.Getegid())
	if err := unix.Mount("hostile", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "mount a FUSE file system at", Path: dir, Err: err}
	}
	f := &FUSE{dir: dir, file: os.NewFile(uintptr(fd), device), never: never, ended: make(chan struct{})}
	go f.serve()
	return f, nil
}

// Stuck returns how many requests with the opcode have been left unanswered.
func (f *FUSE) Stuck(op Opcode) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, s := range f.stuck {
		if s == op {
			n++
		}
	}
	return n
}

// Close unmounts the file system. Whoever waits for an answer gets ECONNABORTED.
func (f *FUSE) Close() error {
	err := unix.Unmount(f.dir, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // MNT_FORCE: abort the connection
	err = errors.Join(err, f.file.Close())
	<-f.ended
	return err
}

const (
	headerIn  = 40      // struct fuse_in_header
	headerOut = 16      // struct fuse_out_header
	longest   = 1 << 17 // FUSE_MIN_READ_BUFFER and more

	fileSize = 4096
)

func (f *FUSE) serve() {
	defer close(f.ended)
	buf := make([]byte, longest)
	for {
		n, err := f.file.Read(buf)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) { // the request was given up meanwhile
			continue
		}
		if err != nil {
			return
		}
		if n < headerIn {
			continue
		}
		op, unique, node := Opcode(binary.NativeEndian.Uint32(buf[4:])), binary.NativeEndian.Uint64(buf[8:]), binary.NativeEndian.Uint64(buf[16:])
		if slices.Contains(f.never, op) {
			f.mu.Lock()
			f.stuck = append(f.stuck, op)
			f.mu.Unlock()
			continue
		}
		body, errno, answered := reply(op, node, buf[headerIn:n])
		if !answered {
			continue
		}
		out := binary.NativeEndian.AppendUint32(nil, uint32(headerOut+len(body)))
		out = binary.NativeEndian.AppendUint32(out, uint32(-int32(errno)))
		out = binary.NativeEndian.AppendUint64(out, unique)
		_, _ = f.file.Write(append(out, body...)) // who asked may have gone
	}
}

// The nodes that there are. All files are one.
const (
	rootNode      = 1
	directoryNode = 2
	fileNode      = 3
)

// reply returns what the kernel is told.
func reply(op Opcode, node uint64, in []byte) (body []byte, errno unix.Errno, answered bool) {
	switch op {
	case forget, batchForget, interrupt:
		return nil, 0, false
	case initialise:
		return initialised(in), 0, true
	case Lookup:
		found := uint64(fileNode)
		if node == rootNode && unix.ByteSliceToString(in) == "directory" {
			found = directoryNode
		}
		body = binary.NativeEndian.AppendUint64(nil, found)
		body = append(body, make([]byte, 32)...) // generation; nothing stays valid
		return append(body, attributes(found)...), 0, true
	case Getattr, setattr:
		return append(make([]byte, 16), attributes(node)...), 0, true
	case Open, Opendir:
		return make([]byte, 16), 0, true
	case Read:
		offset, size := binary.NativeEndian.Uint64(in[8:]), binary.NativeEndian.Uint32(in[16:])
		return make([]byte, min(uint64(size), fileSize-min(offset, fileSize))), 0, true
	case readdir, Release, releasedir, Flush, Access:
		return nil, 0, true
	case write:
		return append(binary.NativeEndian.AppendUint32(nil, binary.NativeEndian.Uint32(in[16:])), 0, 0, 0, 0), 0, true
	case statfs:
		return make([]byte, 80), 0, true
	}
	return nil, unix.ENOSYS, true
}

// initialised returns a struct fuse_init_out.
func initialised(in []byte) []byte {
	out := make([]byte, 64)
	binary.NativeEndian.PutUint32(out[0:], 7)
	binary.NativeEndian.PutUint32(out[4:], min(binary.NativeEndian.Uint32(in[4:]), 31)) // minor
	binary.NativeEndian.PutUint16(out[16:], 64)                                         // max_background
	binary.NativeEndian.PutUint16(out[18:], 48)                                         // congestion_threshold
	binary.NativeEndian.PutUint32(out[20:], 1<<16)                                      // max_write
	return out
}

// attributes returns a node's struct fuse_attr.
func attributes(node uint64) []byte {
	mode, links := uint32(unix.S_IFDIR|0o777), uint32(2)
	if node == fileNode {
		mode, links = unix.S_IFREG|0o777, 1
	}
	out := make([]byte, 88)
	binary.NativeEndian.PutUint64(out, node)
	binary.NativeEndian.PutUint64(out[8:], fileSize)
	binary.NativeEndian.PutUint32(out[60:], mode)
	binary.NativeEndian.PutUint32(out[64:], links)
	binary.NativeEndian.PutUint32(out[80:], 4096) // blksize
	return out
}
