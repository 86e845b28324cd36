package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/ratio"
)

// measureFollowing measures how long a busy thread takes to have its client's new ids. It runs on two CPUs.
func measureFollowing(args []string) error {
	dir := args[0]
	w, err := startWakeups()
	if err != nil {
		return err
	}
	defer w.end()
	var rows []ratio.Row
	for _, m := range []struct {
		what       string
		how        string
		hops       int
		watched    []int
		target     float64
		p99        float64
		difference bool
	}{
		{"A's setresuid -> B's busy thread, a raw call", byThread, 1, nil, 5, 20, false},
		{"the same, all threads' call (Go stops them all first)", byProcess, 1, nil, ratio.Information, ratio.Information, false},
		{"B's scope changes -> C's busy thread", byThread, 2, []int{0}, 3.5, ratio.Information, true},
		{"A's setresuid -> C's busy thread", byThread, 2, nil, ratio.Information, ratio.Information, false},
		{"A's setresuid -> D's busy thread", byThread, 3, nil, ratio.Information, ratio.Information, false},
	} {
		found, err := measureChain(filepath.Join(dir, fmt.Sprint(len(rows))), w, m.how, m.hops, m.watched, m.difference)
		if err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
		rows = append(rows, inWakeups(m.what, m.target, m.p99, found.took, found.wakeups)...)
	}
	return ratio.Print(rows)
}

type found struct{ took, wakeups []float64 }

// measureChain times changes and wake-ups in turn. With difference it is the time from the first that is watched to the last.
func measureChain(dir string, w *wakeups, how string, hops int, watched []int, difference bool) (found, error) {
	if err := os.Mkdir(dir, 0o711); err != nil {
		return found{}, err
	}
	c, err := startChain(dir, how, hops, nil, watched...)
	if err != nil {
		return found{}, err
	}
	defer c.stop()
	var f found
	for round := range followRounds + ratio.WarmUp {
		took, err := c.change()
		if err != nil {
			return found{}, err
		}
		wakeup := w.wake()
		if round < ratio.WarmUp {
			continue
		}
		t := took[len(took)-1]
		if difference {
			t -= took[0]
		}
		f.took = append(f.took, t)
		f.wakeups = append(f.wakeups, wakeup)
	}
	return f, nil
}

// inWakeups returns a row for the median and one for the 99th percentile, both in median wake-ups.
func inWakeups(what string, target, p99Target float64, took, wakeups []float64) []ratio.Row {
	unit := ratio.Median(wakeups)
	in := func(values []float64) []float64 {
		scaled := make([]float64, len(values))
		for i, v := range values {
			scaled[i] = v / unit
		}
		return scaled
	}
	scaled := in(took)
	rows := []ratio.Row{{
		What: what + " : a futex wake-up", AtMost: target, Unit: "µs",
		Median: ratio.Median(scaled), Low: ratio.Quantile(scaled, 0.1), High: ratio.Quantile(scaled, 0.9), Left: ratio.Median(took), Right: unit,
	}}
	if p99Target != ratio.Information {
		rows = append(rows, ratio.Row{
			What: what + ", p99 : a futex wake-up", AtMost: p99Target, Unit: "µs",
			Median: ratio.Quantile(scaled, 0.99), Low: ratio.Quantile(scaled, 0.98), High: ratio.Quantile(scaled, 0.995), Left: ratio.Quantile(took, 0.99), Right: unit,
		})
	}
	return rows
}

// inNetworkNamespace starts a process where the process connector is silent.
var inNetworkNamespace = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
