// Package socketfile makes and removes Unix sockets' files, in directories in which nobody else can take their place.
//
// The way to a directory is walked once, an element at a time, and each directory is checked before anything is looked up in it.
// What is done to a file afterwards is done through the descriptor of the directory or of the file itself: no link is followed,
// and whoever changes the way meanwhile changes nothing. Only bind(2) gets a path; see [Directory.address].
package socketfile

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Directory is a directory in which nobody but root and this process's user can put a socket, nor another directory in its place.
type Directory struct {
	fd   int    // O_PATH
	real string // a path with no link on it
	name string // the path that it was opened by
}

// Open opens the directory at path, or returns why a socket in it would not be safe.
func Open(path string) (*Directory, error) { return Make(path, Missing{}) }

// Missing says which elements of a path are made if they are not there.
type Missing struct {
	// Most is how many are, counted from the last.
	Most int
	// Mode is the mode of the last one, and Above that of those above it, whatever the umask.
	Mode, Above fs.FileMode
}

// Make is Open, and makes what is missing. It makes nothing in a directory that would not be safe.
func Make(path string, missing Missing) (*Directory, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	w := walk{missing: missing}
	defer w.close()
	if err := w.to(absolute); err != nil {
		return nil, err
	}
	leaf := w.way[len(w.way)-1]
	w.way = w.way[:len(w.way)-1] // what is left is closed
	return &Directory{fd: leaf.fd, real: leaf.path, name: absolute}, nil
}

// Mode returns the directory's mode.
func (d *Directory) Mode() (fs.FileMode, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(d.fd, &stat); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: d.name, Err: err}
	}
	return fs.FileMode(stat.Mode & 0o777), nil
}

// Close closes the directory's descriptor. Nothing can be done through it afterwards. The Directory may be nil.
func (d *Directory) Close() {
	if d != nil && d.fd >= 0 {
		unix.Close(d.fd)
		d.fd = -1
	}
}

// path is how people know the file called name in the directory.
func (d *Directory) path(name string) string { return filepath.Join(d.name, name) }

// longest is the longest path of a socket, in bytes (sun_path of unix(7), with its NUL).
const longest = 107

// address is the path by which name in the directory is bound and asked after.
//
// The kernel keeps the path that bind(2) is given for the socket's address, and shows it to clients (getpeername), ss(8) and whoever
// the socket is handed to. So it is one that they can use, and not /proc/self/fd/N, which is the last resort. It is the path with no
// link on it, and each directory on that was found to be one in which only root and this process's user can change what the
// path goes through. Whoever binds looks, through the descriptor, whether the socket is there.
func (d *Directory) address(name string) string {
	if path := filepath.Join(d.real, name); len(path) <= longest {
		return path
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.fd, name)
}

// lstat returns what is called name in the directory.
func (d *Directory) lstat(name string) (unix.Stat_t, error) {
	var stat unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return stat, &fs.PathError{Op: "lstat", Path: d.path(name), Err: err}
	}
	return stat, nil
}

// remove removes name if it still is the file that was seen.
func (d *Directory) remove(name string, seen unix.Stat_t) error {
	now, err := d.lstat(name)
	if err != nil || !same(now, seen) {
		return err
	}
	if err := unix.Unlinkat(d.fd, name, 0); err != nil {
		return &fs.PathError{Op: "remove", Path: d.path(name), Err: err}
	}
	return nil
}

func same(a, b unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }

// isName reports whether name is a single element of a path.
func isName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}
