package main

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"
)

// awaitGroup waits until nothing runs in a process group any more, or over is told. Its leader has ended, and has not been waited for.
func awaitGroup(leader int, over <-chan time.Time) {
	for pause := shortestLook; groupRuns(leader); pause = min(2*pause, longestLook) {
		select {
		case <-time.After(pause):
		case <-over:
			return
		}
	}
}

// The pauses between looks at a process group double from the first to the last: nothing tells when one becomes empty.
const (
	shortestLook = 5 * time.Millisecond
	longestLook  = 200 * time.Millisecond
)

// groupRuns reports whether a process of a group runs besides its leader. Where procfs does not show the leader (its option hidepid) it does
// not show the others, and there may be some.
func groupRuns(leader int) bool {
	groups := lookAtProcesses(time.Now())
	running, seen := groups[leader]
	return running || !seen
}

// processes is the last look at all of them, which commands that end at the same time share.
var processes struct {
	sync.Mutex
	began  time.Time
	groups map[int]bool
}

// lookAtProcesses returns the process groups there are, and of each whether any process in it runs. The look began after since.
func lookAtProcesses(since time.Time) map[int]bool {
	processes.Lock()
	defer processes.Unlock()
	if processes.began.After(since) {
		return processes.groups
	}
	processes.began, processes.groups = time.Now(), make(map[int]bool)
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has gone
		}
		if group, running, ok := groupIn(stat); ok {
			processes.groups[group] = processes.groups[group] || running
		}
	}
	return processes.groups
}

// groupIn understands a process's stat file (proc_pid_stat(5)). The program's name, in parentheses, can be anything.
func groupIn(stat []byte) (group int, running, ok bool) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 3 {
		return 0, false, false
	}
	group, err := strconv.Atoi(string(fields[2]))
	state := string(fields[0])
	return group, state != "Z" && state != "X", err == nil
}
