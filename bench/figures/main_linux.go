// Command figures measures guise against what a program would do without it, and prints one table of ratios. Start it with
// scripts/bench, as root.
//
// Each comparison runs in a process of its own, on one CPU (waking a thread on another one costs more than most of what is
// measured) and with GOMAXPROCS=1. Its sides take turns in many short rounds. The ratio is taken round by round; the table has
// the median and the 10th and 90th percentiles of that.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
)

func main() {
	role.Main(map[string]role.Role{
		"client":        role.Client,
		"switching":     measureSwitching,
		"echo":          measureEcho,
		"echo-server":   serveEcho,
		"memory-server": serveIdle,
		"memory-client": connectIdle,
		"changer":       changer,
		"hop":           hop,
		"flooder":       flooder,
		"following":     measureFollowing,
		"flood":         measureFlood,
		"unheard":       measureUnheard,
		"idle-server":   idleServer,
		"idle-client":   idleClient,

		"crowd-server": serveCrowd,
		"crowd-client": askInCrowd,

		"machines":               measureMachines,
		"machines-daemon":        serveMachines,
		"machines-echo":          measureMachinesEcho,
		"machines-dial":          measureMachinesDial,
		"machines-handshake":     measureHandshake,
		"machines-memory-server": holdAccepted,
		"machines-memory-client": holdDialled,
	}, run)
}

func run() error {
	dir, err := os.MkdirTemp("", "guise-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	fmt.Println("guise's figures:", ratio.Machine())
	if wanted("following") {
		fmt.Print("\nFollowing inside a scope, on two CPUs\n\n")
		rows, err := measureAllFollowing(dir)
		if err != nil {
			return err
		}
		ratio.PrintTable(os.Stdout, rows)
	}
	if wanted("crowd") {
		fmt.Print("\nMany clients, on all CPUs\n\n")
		var rows []ratio.Row
		for _, tracking := range []guise.Tracking{guise.Static, guise.Dynamic} {
			found, err := measureCrowd(dir, tracking)
			if err != nil {
				return err
			}
			rows = append(rows, found...)
		}
		ratio.PrintTable(os.Stdout, rows)
	}
	if wanted("switching") {
		cpu, err := ratio.Pin()
		if err != nil {
			return err
		}
		fmt.Printf("\nEntering, leaving and talking, everything on CPU %d\n\n", cpu)
		rows, err := measureAll(dir)
		if err != nil {
			return err
		}
		ratio.PrintTable(os.Stdout, rows)
	}
	if wanted("machines") {
		if err := showMachines(); err != nil {
			return err
		}
	}
	fmt.Print(notes)
	return nil
}

// wanted reports whether a part is to be measured: all are, unless the arguments name some.
func wanted(part string) bool { return len(os.Args) < 2 || slices.Contains(os.Args[1:], part) }

// measureAllFollowing comes before anything is confined to one CPU.
func measureAllFollowing(dir string) ([]ratio.Row, error) {
	var rows []ratio.Row
	for _, name := range []string{"following", "flood", "unheard"} {
		roleDir := filepath.Join(dir, name)
		if err := os.Mkdir(roleDir, 0o711); err != nil {
			return nil, err
		}
		var found []ratio.Row
		if err := measureOn(&found, nil, nil, name, roleDir); err != nil {
			return nil, err
		}
		rows = append(rows, found...)
	}
	idle, err := measureIdle(dir)
	return append(rows, idle), err
}

const notes = `
The sides of each row took turns in short rounds; the ratio is that of each round, its median and 10th to 90th percentile are
shown beside both sides' own medians. Only ratios travel between machines. A missed target is marked and fails nothing.
Following is timed from just before the client's system call to the busy thread's geteuid(2) showing it, in wake-ups of a thread that
waits in futex(2) on the other CPU, timed in the same rounds. What is "p99" is one number; its spread is that of the 98th and the 99.5th.
Between machines all is as package smb has it: SMB 3.1.1, signed. "A bare daemon" has the handshake and looks at nothing in it. Memory is
that of processes with connections that were used once; what the kernel and smbd have is not in it.
What has only a unit beside it was not divided by anything: median and 10th to 90th percentile of it.
"Without the scheduling check": RunAsClient always makes the check, two calls on the way in and two on the way out. They were
timed in the same rounds as what they add to the raw calls, and taken off.
`

func measureAll(dir string) ([]ratio.Row, error) {
	var rows []ratio.Row
	for _, server := range []struct {
		dir  string
		uid  int
		attr *syscall.SysProcAttr
	}{
		{dir: "root", uid: 0},
		{dir: "service", uid: serviceUID, attr: asService},
	} {
		serverDir := filepath.Join(dir, server.dir)
		if err := os.Mkdir(serverDir, 0o711); err != nil {
			return nil, err
		}
		if err := os.Chown(serverDir, server.uid, server.uid); err != nil {
			return nil, err
		}
		var switches []ratio.Row
		if err := measure(&switches, server.attr, "switching", serverDir); err != nil {
			return nil, err
		}
		rows = append(rows, switches...)
	}
	for _, where := range []string{"goroutine", "process"} {
		var echoes []ratio.Row
		if err := measure(&echoes, nil, "echo", dir, where); err != nil {
			return nil, err
		}
		rows = append(rows, echoes...)
	}
	memory, err := measureMemory(dir)
	return append(rows, memory), err
}

const serviceUID = 61010

// asService starts an ordinary user's process that holds the two capabilities that acting as others takes, and no more.
var asService = &syscall.SysProcAttr{
	Credential:  &syscall.Credential{Uid: serviceUID, Gid: serviceUID},
	AmbientCaps: []uintptr{unix.CAP_SETUID, unix.CAP_SETGID},
}

// measure starts a measuring process and takes in what it found.
func measure(result any, attr *syscall.SysProcAttr, name string, args ...string) error {
	return measureOn(result, attr, []string{"GOMAXPROCS=1"}, name, args...)
}

func measureOn(result any, attr *syscall.SysProcAttr, env []string, name string, args ...string) error {
	p, err := role.Start(attr, env, name, args...)
	if err != nil {
		return err
	}
	line, err := p.Line()
	if stopErr := p.Stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		return fmt.Errorf("measuring %s: %w", name, err)
	}
	return json.Unmarshal([]byte(line), result)
}
