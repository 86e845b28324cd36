package socketfile

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// setMode gives a file, of which fd is an O_PATH descriptor and which is no link, its mode. It follows nothing: the file is the one
// that fd is of, wherever its name leads by now.
func setMode(fd int, mode fs.FileMode) error {
	err := unix.Fchmodat(fd, "", uint32(mode.Perm()), unix.AT_EMPTY_PATH)
	// fchmodat2(2) is of Linux 6.6. A filter of system calls that is older than that says EPERM.
	if err == unix.EOPNOTSUPP || err == unix.EPERM {
		return setModeByProc(fd, mode)
	}
	return err
}

func setModeByProc(fd int, mode fs.FileMode) error {
	const descriptors = "/proc/self/fd"
	var system unix.Statfs_t
	if err := unix.Statfs(descriptors, &system); err != nil || system.Type != unix.PROC_SUPER_MAGIC {
		return errors.New("it takes Linux 6.6 (fchmodat2), or a proc file system at /proc, and there is neither")
	}
	return unix.Chmod(fmt.Sprintf("%s/%d", descriptors, fd), uint32(mode.Perm()))
}
