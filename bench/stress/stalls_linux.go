package main

import "time"

// stalls tells how long the machine has kept a process's goroutines from running that were to wake up: for each of the last windows of
// time the longest. Each process of the run measures its own, in memory that all share.
type stalls struct{ w words }

const (
	stallWindow  = int64(100 * time.Millisecond)
	stallWindows = 32
	stallWords   = 2 * stallWindows // of each window its number, and the longest
)

// measure goes on until the process ends.
func (s stalls) measure() {
	const nap = int64(20 * time.Millisecond)
	for {
		begun := now()
		time.Sleep(time.Duration(nap))
		end := now()
		// What is late came to be so in all the windows since.
		for n := (begun + nap) / stallWindow; n <= end/stallWindow; n++ {
			s.add(n, uint64(max(0, end-begun-nap)))
		}
	}
}

func (s stalls) add(window int64, late uint64) {
	w := s.w[window%stallWindows*2:]
	if w[0].Load() != uint64(window) {
		w[1].Store(0)
		w[0].Store(uint64(window))
	}
	if w[1].Load() < late {
		w[1].Store(late)
	}
}

// longest returns the longest in the windows of a time, of which the last are known.
func (s stalls) longest(from, to int64) time.Duration {
	var longest uint64
	for n := max(from/stallWindow, to/stallWindow-stallWindows+1); n <= to/stallWindow; n++ {
		if w := s.w[n%stallWindows*2:]; w[0].Load() == uint64(n) {
			longest = max(longest, w[1].Load())
		}
	}
	return time.Duration(longest)
}

// stalled returns how long an operation of a hop may be behind on top of its bound, because the machine was busy with something else:
// at each process on the way one goroutine has to wake up for what has come, and a thread for what it has to do.
func (b board) stalled(client, place, hop int, from, to int64) time.Duration {
	sum := b.stalls(servers+client).longest(from, to)
	for n := range hop {
		sum += b.stalls(serverOf(place-n)).longest(from, to)
	}
	return 2 * sum
}
