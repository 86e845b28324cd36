package main

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/role"
)

// ownCapabilities are the effective ones that this process began with.
var ownCapabilities = mustCapabilities()

func mustCapabilities() [2]uint32 {
	c, err := capabilities()
	if err != nil {
		panic(err)
	}
	return c
}

func capabilities() ([2]uint32, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return [2]uint32{data[0].Effective, data[1].Effective}, err
}

// threadIs asks the kernel who the calling thread is, and returns an error if that is somebody else than want. A scope's thread
// has no capabilities.
func threadIs(want role.IDs, capable bool) error {
	_, uid, _ := unix.Getresuid()
	_, gid, _ := unix.Getresgid()
	if uid != int(want.UID) || gid != int(want.GID) {
		return fmt.Errorf("the thread has uid %d and gid %d, not %d and %d", uid, gid, want.UID, want.GID)
	}
	groups, err := unix.Getgroups()
	if err != nil {
		return err
	}
	if !slices.EqualFunc(groups, want.Groups, func(a int, b uint32) bool { return uint32(a) == b }) {
		return fmt.Errorf("the thread of uid %d has groups %v, not %v", uid, groups, want.Groups)
	}
	has, err := capabilities()
	if err != nil {
		return err
	}
	var should [2]uint32
	if capable {
		should = ownCapabilities
	}
	if has != should {
		return fmt.Errorf("the thread of uid %d has capabilities %x, not %x", uid, has, should)
	}
	return nil
}

// workOnFile creates a file, compares whose the kernel made it, and removes it.
func workOnFile(path string, want role.IDs) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("creating %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("looking at %s: %w", path, err)
	}
	if st.Uid != want.UID || st.Gid != want.GID {
		return fmt.Errorf("%s belongs to uid %d and gid %d, not to %d and %d", path, st.Uid, st.Gid, want.UID, want.GID)
	}
	if err := unix.Unlink(path); err != nil {
		return fmt.Errorf("removing %s: %w", path, err)
	}
	return nil
}
