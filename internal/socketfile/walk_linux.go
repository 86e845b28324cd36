package socketfile

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// What the kernel bounds a walk by, too.
const (
	mostLinks   = 40
	longestPath = 4095
)

// walk goes along a path as the kernel does, and looks at each directory and link on the way.
type walk struct {
	missing Missing
	way     []step // from the root; no link is among them
	links   int
}

// step is a directory on the way.
type step struct {
	path string
	fd   int // O_PATH
	stat unix.Stat_t
}

// element is one of a path.
type element struct {
	name string
	// left is how many elements of the path that was asked for follow; -1 if this one is a link's.
	left int
}

// to walks to path, which is absolute, and checks all of the way.
func (w *walk) to(path string) error {
	if err := w.push(unix.AT_FDCWD, "/", "/"); err != nil {
		return err
	}
	ahead := elements(path)
	for i := range ahead {
		ahead[i].left = len(ahead) - 1 - i
	}
	for len(ahead) > 0 {
		e := ahead[0]
		ahead = ahead[1:]
		if e.name == ".." {
			if len(w.way) > 1 {
				w.pop()
			}
			continue
		}
		// Nothing is looked up in a directory before it is checked: what it has could be another the next moment.
		if err := w.here().check(false); err != nil {
			return err
		}
		link, err := w.enter(e)
		if err != nil {
			return err
		}
		if link == "" {
			continue
		}
		if link[0] == '/' {
			for len(w.way) > 1 {
				w.pop()
			}
		}
		parts := elements(link)
		for i := range parts {
			parts[i].left = -1
		}
		ahead = append(parts, ahead...)
	}
	return w.here().check(true)
}

func elements(path string) []element {
	var all []element
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			all = append(all, element{name: name})
		}
	}
	return all
}

func (w *walk) here() *step { return &w.way[len(w.way)-1] }

func (w *walk) pop() {
	unix.Close(w.here().fd)
	w.way = w.way[:len(w.way)-1]
}

func (w *walk) close() {
	for len(w.way) > 0 {
		w.pop()
	}
}

// push goes on to the directory called name in dir.
func (w *walk) push(dir int, name, path string) error {
	s := step{path: path}
	var err error
	// With O_DIRECTORY an automounter mounts what belongs there.
	if s.fd, err = openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0); err != nil {
		return err
	}
	if err := unix.Fstat(s.fd, &s.stat); err != nil {
		unix.Close(s.fd)
		return err
	}
	w.way = append(w.way, s)
	return nil
}

// enter goes on to e, a directory, or returns the target of e, a link.
func (w *walk) enter(e element) (link string, err error) {
	here := w.here()
	path := strings.TrimSuffix(here.path, "/") + "/" + e.name
	if len(path) > longestPath {
		return "", &fs.PathError{Op: "open", Path: path, Err: unix.ENAMETOOLONG}
	}
	err = w.push(here.fd, e.name, path)
	if err == unix.ENOENT && e.left >= 0 && e.left < w.missing.Most {
		made, mkdirErr := w.mkdir(e)
		if mkdirErr != nil {
			return "", &fs.PathError{Op: "mkdir", Path: path, Err: mkdirErr}
		}
		if err = w.push(here.fd, e.name, path); err == nil && made {
			err = w.setMode(e)
		}
	}
	switch err {
	case nil:
		return "", nil
	case unix.ENOTDIR, unix.ELOOP:
		return w.readLink(e.name, path)
	}
	return "", &fs.PathError{Op: "open", Path: path, Err: err}
}

// mkdir makes the directory e. Somebody else may be quicker.
func (w *walk) mkdir(e element) (made bool, err error) {
	err = unix.Mkdirat(w.here().fd, e.name, uint32(w.missing.mode(e)))
	if err == unix.EEXIST {
		return false, nil
	}
	return err == nil, err
}

// setMode gives e, which was made and is the last step, its mode. Only what is one's own can be what was made.
func (w *walk) setMode(e element) error {
	if made := w.here(); int(made.stat.Uid) == os.Geteuid() {
		return setMode(made.fd, w.missing.mode(e))
	}
	return nil
}

func (m Missing) mode(e element) fs.FileMode {
	if e.left == 0 {
		return m.Mode.Perm()
	}
	return m.Above.Perm()
}

// readLink returns where the link called name leads to.
func (w *walk) readLink(name, path string) (string, error) {
	here := w.here()
	fd, err := openat(here.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return "", &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", fmt.Errorf("%s is no directory", path)
	}
	// Where others can't write the link is what root or oneself put there, whomever it belongs to.
	if othersWrite(here.stat) && !trusted(stat.Uid) {
		return "", fmt.Errorf("the link %s belongs to uid %d, who could lead it elsewhere; it has to be root's or one's own", path, stat.Uid)
	}
	if w.links++; w.links > mostLinks {
		return "", &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
	}
	target := make([]byte, longestPath+1)
	n, err := unix.Readlinkat(fd, "", target)
	if err == nil && (n == 0 || n == len(target)) {
		err = unix.ENAMETOOLONG
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	return string(target[:n]), nil
}

// check returns an error if somebody else could put a socket in the leaf of the way, or a directory that is on it elsewhere. Above the
// leaf a directory with the sticky bit will do, such as /tmp: nobody else can rename what is in it.
func (s *step) check(leaf bool) error {
	if !trusted(s.stat.Uid) {
		return fmt.Errorf("%s belongs to uid %d, who could put another server in this one's place; it has to be root's or one's own", s.path, s.stat.Uid)
	}
	if othersWrite(s.stat) && (leaf || s.stat.Mode&unix.S_ISVTX == 0) {
		mode := fs.FileMode(s.stat.Mode & 0o777)
		if s.stat.Mode&unix.S_ISVTX != 0 {
			mode |= fs.ModeSticky
		}
		return fmt.Errorf("others can write to %s (mode %s), so they could put another server in this one's place; take a directory that is one's own",
			s.path, mode)
	}
	return nil
}

// trusted reports whether what belongs to uid can only be changed by root and this process's user.
func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

func othersWrite(stat unix.Stat_t) bool { return stat.Mode&0o022 != 0 }

// openat is openat(2), which closes on exec and is not interrupted.
func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
