package socketfile

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// lock keeps other servers from taking name until unlock is called: a dead server's socket may be another's by the time that it is
// removed. The lock is a file beside the socket, which only those can make who could make the socket; '~' is in no pipe's name.
func (d *Directory) lock(name string) (unlock func(), err error) {
	name += "~lock"
	for {
		fd, stat, err := d.lockFile(name)
		if err != nil {
			return nil, fmt.Errorf("locking %s: %w", d.path(name), err)
		}
		// Whoever had it before has removed the file; what counts is the one that is there now.
		there, err := d.lstat(name)
		if err == nil && same(there, stat) {
			return func() {
				_ = d.remove(name, stat)
				unix.Close(fd)
			}, nil
		}
		unix.Close(fd)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// lockFile opens and locks the file called name.
func (d *Directory) lockFile(name string) (fd int, stat unix.Stat_t, err error) {
	// What is no file is not waited for.
	fd, err = openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
	if err != nil {
		return -1, stat, err
	}
	if err = unix.Fstat(fd, &stat); err == nil {
		err = checkLock(stat)
	}
	if err == nil {
		for err = unix.EINTR; err == unix.EINTR; {
			err = unix.Flock(fd, unix.LOCK_EX)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, stat, err
	}
	return fd, stat, nil
}

// checkLock returns an error if the file that was opened as the lock is another's, or is something else as well.
func checkLock(stat unix.Stat_t) error {
	switch {
	case stat.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("it is no regular file")
	case !trusted(stat.Uid):
		return fmt.Errorf("it belongs to uid %d; it has to be root's or one's own", stat.Uid)
	case stat.Nlink > 1: // 0 if its last owner has just removed it
		return fmt.Errorf("it has %d names; remove this one", stat.Nlink)
	}
	return nil
}
