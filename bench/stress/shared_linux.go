package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// words are a file's memory, which several processes share.
type words []atomic.Uint64

func makeShared(path string, n int) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(int64(n) * 8)
}

func openShared(path string) (words, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", path, err)
	}
	return unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8), nil
}

// now is a time that all processes agree on, in nanoseconds.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// The phases of the run.
const (
	gathering = iota // clients connect
	changing         // clients change, servers work
	settling         // clients change no more, and who is in a scope stays there as its client's last identity
	finishing        // everybody leaves
	reporting        // servers say what they have seen
)

// board is what the processes of the run tell each other.
type board struct{ w words }

const (
	boardPhase  = 0
	boardFailed = 1
	boardHeader = 8
	placeWords  = 3
	boardStalls = boardHeader + (places+clients)*placeWords
	boardLength = boardStalls + (servers+clients)*stallWords
)

func (b board) phase() uint64     { return b.w[boardPhase].Load() }
func (b board) setPhase(p uint64) { b.w[boardPhase].Store(p) }
func (b board) fail()             { b.w[boardFailed].Store(1) }
func (b board) failed() bool      { return b.w[boardFailed].Load() != 0 }

// place is where one server goroutine, or one client, says that it gets on.
type place struct{ w words }

func (b board) place(n int) place {
	from := boardHeader + n*placeWords
	return place{b.w[from : from+placeWords]}
}

// stalls are those of a process: first the servers', then the clients'.
func (b board) stalls(process int) stalls {
	from := boardStalls + process*stallWords
	return stalls{b.w[from : from+stallWords]}
}

func (b board) client(n int) place { return b.place(places + n) }

// alive says that something is done just now.
func (p place) alive() {
	p.w[0].Store(uint64(now()))
}

func (p place) lastAlive() int64 { return int64(p.w[0].Load()) }

// settle says that the thread is in a scope as its client's last identity, and how long that took.
func (p place) settle(after int64) {
	p.w[1].Store(uint64(after))
	p.w[2].Store(1)
}

func (p place) unsettle()           { p.w[2].Store(0) }
func (p place) settled() bool       { return p.w[2].Load() != 0 }
func (p place) settledAfter() int64 { return int64(p.w[1].Load()) }
