package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/role"
)

// neighbours are the users beside the honest ones.
type neighbours struct {
	processes crowd
	names     []string
	numbers   []int
	mu        sync.Mutex
	told      map[int]progress
}

// startBeside starts them, or only some of the hostile ones, and returns once each is at it.
func startBeside(b besieged, who beside, only []int) (*neighbours, error) {
	n := &neighbours{told: make(map[int]progress)}
	if who == nobodyElse {
		return n, nil
	}
	for i := range hostileUsers {
		if who == hostile && len(only) > 0 && !slices.Contains(only, i) {
			continue
		}
		name, ids, attr, part := "hostile spinner", hostileUser(i), attrOf(hostileUser(i)), "spins"
		if who == hostile {
			name, part = "hostile user", parts[i].name
			switch {
			case parts[i].crowded:
				attr = attrOf(crowded(ids))
			case parts[i].root:
				attr = nil
			}
		}
		// One CPU's time for each, as for who spins.
		p, err := role.Start(attr, []string{"GOMAXPROCS=1"}, name, string(b), fmt.Sprint(i))
		if err != nil {
			return n, fmt.Errorf("starting the user who %s: %w", part, err)
		}
		n.processes, n.names, n.numbers = append(n.processes, p), append(n.names, part), append(n.numbers, i)
	}
	for i, p := range n.processes {
		if _, err := p.Line(); err != nil {
			return n, fmt.Errorf("the user who %s: %w", n.names[i], err)
		}
		if who == hostile {
			go n.hear(i, p)
		}
	}
	return n, nil
}

// progress is how often a hostile user has done what, and what it got for it last.
type progress struct {
	Done   map[string]int
	Failed map[string]int
	Last   map[string]string
}

func (n *neighbours) hear(i int, p *role.Process) {
	for {
		line, err := p.Line()
		if err != nil {
			return
		}
		var told progress
		if json.Unmarshal([]byte(line), &told) != nil {
			continue
		}
		n.mu.Lock()
		n.told[i] = told
		n.mu.Unlock()
	}
}

// print says what hostile users have done.
func (n *neighbours) print() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, name := range n.names {
		told, ok := n.told[i]
		if !ok {
			continue
		}
		fmt.Printf("  the one who %s (%d)\n", name, n.numbers[i])
		for _, what := range slices.Sorted(maps.Keys(told.Done)) {
			fmt.Printf("    %6d times %s", told.Done[what], what)
			if failed := told.Failed[what]; failed > 0 {
				fmt.Printf("; %d times not to the end: %s", failed, told.Last[what])
			}
			fmt.Println()
		}
	}
}

// end ends all processes of hostile users.
func (n *neighbours) end() {
	n.processes.kill()
	n.processes = nil
	endHostile()
}

// endHostile ends what is there of hostile users, also what they or guise serve's commands have left behind.
func endHostile() {
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		left := hostileProcesses()
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
			// What was left behind is this process's child by now, and nobody else waits for it.
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		if time.Since(begun) > time.Minute {
			fmt.Fprintf(os.Stderr, "stress: after a minute these processes of hostile users have not ended: %v\n", left)
			return
		}
	}
}

// hostileProcesses returns the processes of hostile users' ids, without those that have ended and are waited for by another.
func hostileProcesses() (pids []int) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name.Name())
		if err != nil {
			continue
		}
		status, err := os.ReadFile(proc(pid, "status"))
		if err != nil {
			continue
		}
		var uid, parent uint32
		_, _ = fmt.Sscan(statusField(string(status), "Uid"), &uid)
		_, _ = fmt.Sscan(statusField(string(status), "PPid"), &parent)
		zombie := strings.HasPrefix(statusField(string(status), "State"), "Z")
		if isHostile(uid) && (!zombie || int(parent) == os.Getpid()) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// spin is the role of a user who does nothing but that.
func spin([]string) error {
	go endWithInput()
	fmt.Println("ready")
	for n := 0; ; n++ {
		runtime.KeepAlive(n)
	}
}

// endWithInput ends this process when who started it has gone.
func endWithInput() {
	role.AwaitEnd()
	os.Exit(0)
}
