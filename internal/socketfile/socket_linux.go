package socketfile

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrTaken: a live server has the socket.
var ErrTaken = errors.New("a live server has this socket")

// Options say how a socket is made.
type Options struct {
	Type    int // unix.SOCK_STREAM or unix.SOCK_SEQPACKET
	Mode    fs.FileMode
	GID     int // -1 leaves it
	Backlog int
}

// File is the file of a socket that this process made.
type File struct {
	directory *Directory
	name      string
	stat      unix.Stat_t
}

// Remove removes the file if it is still the one that was made. The directory must not be closed yet; the File may be nil.
func (f *File) Remove() {
	if f != nil {
		_ = f.directory.remove(f.name, f.stat)
	}
}

// Listen makes a listening socket called name. What a dead server left behind is replaced.
func (d *Directory) Listen(name string, o Options) (fd int, file *File, err error) {
	if !isName(name) {
		return -1, nil, &fs.PathError{Op: "bind", Path: d.path(name), Err: unix.EISDIR}
	}
	unlock, err := d.lock(name)
	if err != nil {
		return -1, nil, err
	}
	defer unlock()
	if err := d.removeDead(name); err != nil {
		return -1, nil, err
	}
	fd, err = unix.Socket(unix.AF_UNIX, o.Type|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, nil, err
	}
	if file, err = d.bind(fd, name, o); err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, file, nil
}

// bind binds fd to name and has it listen.
func (d *Directory) bind(fd int, name string, o Options) (*File, error) {
	address := d.address(name)
	switch err := unix.Bind(fd, &unix.SockaddrUnix{Name: address}); err {
	case nil:
	case unix.EADDRINUSE:
		return nil, ErrTaken // since the dead one was removed
	default:
		if address != filepath.Join(d.real, name) {
			err = fmt.Errorf("%w (the directory's real path is too long for a socket, so this takes a proc file system at /proc)", err)
		}
		return nil, &fs.PathError{Op: "bind", Path: address, Err: err}
	}
	// From here on it is a matter of this descriptor, whatever the name is made to lead to.
	made, err := openat(d.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.path(name), Err: err}
	}
	defer unix.Close(made)
	file := &File{directory: d, name: name}
	if err := unix.Fstat(made, &file.stat); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: d.path(name), Err: err}
	}
	if file.stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, fmt.Errorf("%s is something else now than the socket that was made", d.path(name))
	}
	// Nobody can connect before listen(2), so nobody gets in with the wrong mode.
	err = setAccess(made, d.path(name), o)
	if err == nil {
		if err = unix.Listen(fd, o.Backlog); err != nil {
			err = fmt.Errorf("listen(2): %w", err)
		}
	}
	if err != nil {
		file.Remove()
		return nil, err
	}
	return file, nil
}

// setAccess gives the socket's file, of which made is a descriptor, its group and mode.
func setAccess(made int, path string, o Options) error {
	if o.GID != -1 {
		if err := unix.Fchownat(made, "", -1, o.GID, unix.AT_EMPTY_PATH); err != nil {
			return &fs.PathError{Op: "lchown", Path: path, Err: err}
		}
	}
	if err := setMode(made, o.Mode); err != nil {
		return &fs.PathError{Op: "chmod", Path: path, Err: err}
	}
	return nil
}

// removeDead removes the socket called name if there is one that no process has.
func (d *Directory) removeDead(name string) error {
	stat, err := d.lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s is there already and is no socket (%s)", d.path(name), kindOf(stat))
	}
	switch life, err := LifeOf(d.address(name)); life {
	case Live:
		return ErrTaken
	case None:
		return nil
	case Dead:
		if err := d.remove(name, stat); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	default:
		return fmt.Errorf("asking whether a server has %s: %w; remove it if none has", d.path(name), err)
	}
}

func kindOf(stat unix.Stat_t) string {
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "a file"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a link"
	case unix.S_IFIFO:
		return "a FIFO"
	}
	return "a device"
}
