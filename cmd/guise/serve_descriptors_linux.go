package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// firstOther is the first descriptor after those of standard input, output and error.
const firstOther = 3

// keepDescriptors has no command inherit what this process was started with besides its standard ones: a file that a shell had open, or
// a socket of systemd's that is meant for another process. The commands are the clients, who may not have been let near it.
func keepDescriptors() error {
	err := unix.CloseRange(firstOther, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) { // before Linux 5.11, or 5.9
		err = keepEachDescriptor()
	}
	if err != nil {
		return fmt.Errorf("keeping the commands from inheriting this process's descriptors: %w", err)
	}
	return nil
}

// keepEachDescriptor is keepDescriptors for kernels that can't do it in one call.
func keepEachDescriptor() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return fmt.Errorf("/proc/self/fd has %q in it: %w", e.Name(), fs.ErrInvalid)
		}
		if fd >= firstOther {
			unix.CloseOnExec(fd) // that of the directory is closed by now
		}
	}
	return nil
}
