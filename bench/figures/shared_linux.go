package main

import (
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// board is memory that the processes of a measurement share: moments, in nanoseconds of CLOCK_MONOTONIC, and what they tell each
// other.
type board struct {
	round   atomic.Int64     // that the changer is in
	flood   atomic.Int64     // what the flooder does
	changed atomic.Int64     // when the changer began to change
	changes atomic.Int64     // by the flooding client
	seen    [16]atomic.Int64 // when the busy thread of each server had the new ids in this round, 0 if it has not
}

func openBoard(path string) (*board, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(int64(unsafe.Sizeof(board{}))); err != nil {
		return nil, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(unsafe.Sizeof(board{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return (*board)(unsafe.Pointer(unsafe.SliceData(b))), nil
}

func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // can't fail
	return t.Nano()
}
