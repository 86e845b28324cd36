package launch

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// runtimeDescriptors returns those by which the Go runtime waits for descriptors and timers. It uses them on any thread, whenever
// it likes, and ends the process if it can't.
func runtimeDescriptors() ([]int, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []int
	kinds := make(map[string]bool)
	for _, e := range entries {
		to, err := os.Readlink(dir + "/" + e.Name())
		if err != nil || to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
			continue // or it has been closed
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, err
		}
		found, kinds[to] = append(found, fd), true
	}
	if len(kinds) != 2 {
		return nil, errors.New(dir + " does not show the descriptors that the Go runtime polls with")
	}
	return found, nil
}

// leaveTable gives the calling thread, which is never to run anything else, a table of descriptors of its own with only those of
// kept in it.
func leaveTable(kept []int) error {
	slices.Sort(kept)
	last := kept[len(kept)-1]
	// Not a copy of the table to be closed then: what is beyond the last is never in it, and so nothing of that can hang.
	err := unix.CloseRange(uint(last)+1, math.MaxUint32, unix.CLOSE_RANGE_UNSHARE)
	if err != nil { // before Linux 5.9, or a filter that does not know it
		if unshareErr := unix.Unshare(unix.CLONE_FILES); unshareErr != nil {
			return fmt.Errorf("a table of descriptors of its own: close_range: %w; unshare: %w", err, unshareErr)
		}
	}
	open, err := ownDescriptors()
	if err != nil {
		return err
	}
	for _, fd := range open {
		if !slices.Contains(kept, fd) {
			unix.Close(fd)
		}
	}
	return nil
}

// ownDescriptors returns those of the calling thread's table.
func ownDescriptors() ([]int, error) {
	const path = "/proc/thread-self/fd"
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(dir)
	var names []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.Getdents(dir, buf)
		if err != nil {
			return nil, os.NewSyscallError("getdents", err)
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	open := make([]int, 0, len(names))
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("%s has %q in it", path, name)
		}
		if fd != dir {
			open = append(open, fd)
		}
	}
	return open, nil
}
