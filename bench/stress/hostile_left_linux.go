package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// leftFor is how long servers may have as much as they have, after the last client has gone, until it becomes less.
	leftFor = time.Minute
	// moreAtWork are how many more threads may be at work: those of Go's runtime itself come and go.
	moreAtWork = 4
	// moreMemory may stay for a while, since Go's runtime gives it back slowly.
	moreMemory = 256 << 20
	// moreGoroutines are those that Go's runtime itself may have begun since.
	moreGoroutines = 8
)

// holdings are what a server process has.
type holdings struct {
	descriptors map[string]int // how many of what
	threads     int
	atWork      int      // threads that do something, or are blocked in it
	odd         []string // threads that are scheduled otherwise than the process was
	memory      int64
	peak        int64 // of memory
}

func (h holdings) count() (n int) {
	for _, count := range h.descriptors {
		n += count
	}
	return n
}

func (h holdings) String() string {
	return fmt.Sprintf("%d descriptors, %d threads (%d at work), %d MB", h.count(), h.threads, h.atWork, h.memory>>20)
}

func proc(pid int, names ...string) string {
	return filepath.Join(append([]string{"/proc", fmt.Sprint(pid)}, names...)...)
}

// holdingsOf looks at a process.
func holdingsOf(pid int) (h holdings, err error) {
	h.descriptors = make(map[string]int)
	names, err := os.ReadDir(proc(pid, "fd"))
	if err != nil {
		return h, err
	}
	for _, name := range names {
		to, err := os.Readlink(proc(pid, "fd", name.Name()))
		if err == nil && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" { // the runtime's
			h.descriptors[kindOf(to)]++
		}
	}
	tasks, err := os.ReadDir(proc(pid, "task"))
	if err != nil {
		return h, err
	}
	first, err := schedulingOf(proc(pid))
	if err != nil {
		return h, err
	}
	for _, task := range tasks {
		is, err := schedulingOf(proc(pid, "task", task.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		h.threads++
		// Go's runtime never ends a thread, unless a goroutine that is locked to it ends. One that it has no work for waits in futex(2).
		if at, err := os.ReadFile(proc(pid, "task", task.Name(), "wchan")); err == nil && !strings.HasPrefix(string(at), "futex_") {
			h.atWork++
		}
		if is != first {
			h.odd = append(h.odd, fmt.Sprintf("thread %s has %s instead of %s", task.Name(), is, first))
		}
	}
	h.memory, h.peak = statusOf(pid, "RssAnon"), statusOf(pid, "VmHWM")
	return h, nil
}

var numbers = regexp.MustCompile(`\[?[0-9]+\]?`)

// kindOf is what a descriptor is of, without what tells one such from another.
func kindOf(to string) string { return strings.TrimSuffix(numbers.ReplaceAllString(to, ""), ":") }

// schedulingOf returns the nice value, the policy and the CPUs of a thread.
func schedulingOf(task string) (string, error) {
	stat, err := os.ReadFile(filepath.Join(task, "stat"))
	if err != nil {
		return "", err
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after) // from the third of proc_pid_stat(5) on
	if len(fields) < 39 {
		return "", fmt.Errorf("%s/stat is %q", task, stat)
	}
	status, err := os.ReadFile(filepath.Join(task, "status"))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("nice %s, policy %s, CPUs %s", fields[16], fields[38], statusField(string(status), "Cpus_allowed_list")), nil
}

func statusField(status, name string) string {
	for line := range strings.Lines(status) {
		if field, value, _ := strings.Cut(line, ":"); field == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// statusOf returns an amount of memory, in bytes.
func statusOf(pid int, name string) (amount int64) {
	status, err := os.ReadFile(proc(pid, "status"))
	if err == nil {
		_, _ = fmt.Sscanf(statusField(string(status), name), "%d kB", &amount)
	}
	return amount << 10
}

func memoryOf(pid int) int64 { return statusOf(pid, "RssAnon") }

// awaitHoldings waits until a server has again what it had before, and says what it has more.
func awaitHoldings(ctx context.Context, pid int, before holdings) (after holdings, more error) {
	least := math.MaxInt
	for since := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		endHostile() // commands for clients that had waited begin when these have gone
		after, err := holdingsOf(pid)
		if err != nil {
			return after, err
		}
		if has := after.count() + int(after.memory>>20) + after.atWork + len(after.odd); has < least {
			least, since = has, time.Now()
		}
		more := compareHoldings(before, after)
		if more == nil || time.Since(since) > leftFor || ctx.Err() != nil {
			return after, more
		}
	}
}

func compareHoldings(before, after holdings) error {
	var errs []error
	if n := after.count() - before.count(); n > 0 {
		var kinds []string
		for _, kind := range slices.Sorted(maps.Keys(after.descriptors)) {
			if more := after.descriptors[kind] - before.descriptors[kind]; more > 0 {
				kinds = append(kinds, fmt.Sprintf("%d of %s", more, kind))
			}
		}
		errs = append(errs, fmt.Errorf("%d descriptors more than before: %s", n, strings.Join(kinds, ", ")))
	}
	if after.atWork > before.atWork+moreAtWork {
		errs = append(errs, fmt.Errorf("%d threads at work, before there were %d", after.atWork, before.atWork))
	}
	if len(after.odd) > 0 {
		errs = append(errs, fmt.Errorf("%d threads are scheduled otherwise than the process was: the first, %s", len(after.odd), after.odd[0]))
	}
	if after.memory > before.memory+moreMemory {
		errs = append(errs, fmt.Errorf("%d MB of memory, before there were %d", after.memory>>20, before.memory>>20))
	}
	return errors.Join(errs...)
}
