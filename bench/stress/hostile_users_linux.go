package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
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
	mu        sync.Mutex
	told      map[int]progress
	ended     bool
}

// startBeside starts them, and returns once each is at it.
func startBeside(b besieged, who beside) (*neighbours, error) {
	n := &neighbours{told: make(map[int]progress)}
	if who == nobodyElse {
		return n, nil
	}
	for i := range hostileUsers {
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
		n.processes, n.names = append(n.processes, p), append(n.names, part)
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
	for i := range n.processes {
		told, ok := n.told[i]
		if !ok {
			continue
		}
		var did []string
		for _, name := range slices.Sorted(maps.Keys(told.Done)) {
			text := fmt.Sprintf("%s %d", name, told.Done[name])
			if failed := told.Failed[name]; failed > 0 {
				text += fmt.Sprintf(" (%d ended by: %s)", failed, told.Last[name])
			}
			did = append(did, text)
		}
		fmt.Printf("  user %d %s: %s\n", i, n.names[i], strings.Join(did, "; "))
	}
}

// end ends all processes of hostile users, those too that they or guise serve's commands have left behind.
func (n *neighbours) end() {
	if n.ended {
		return
	}
	n.ended = true
	n.processes.kill()
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
	for {
	}
}

// endWithInput ends this process when who started it has gone.
func endWithInput() {
	role.AwaitEnd()
	os.Exit(0)
}
