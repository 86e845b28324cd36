package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
)

const (
	dynamicConnections = 5000
	dynamicClients     = 5 // processes
	idleFor            = 60 * time.Second
)

// measureIdle measures what dynamic connections cost whose clients don't change: the CPU time of the server and all clients.
func measureIdle(dir string) (ratio.Row, error) {
	path := filepath.Join(dir, "idle-dynamic")
	server, err := role.Start(nil, nil, "idle-server", path)
	if err != nil {
		return ratio.Row{}, err
	}
	defer server.Stop()
	if _, err := server.Line(); err != nil {
		return ratio.Row{}, err
	}
	processes := []*role.Process{server}
	for range dynamicClients {
		p, err := role.Start(nil, nil, "idle-client", path, strconv.Itoa(dynamicConnections/dynamicClients))
		if err != nil {
			return ratio.Row{}, err
		}
		defer p.Stop()
		processes = append(processes, p)
	}
	for _, p := range processes {
		if _, err := p.Line(); err != nil {
			return ratio.Row{}, err
		}
	}
	spent := func() (total time.Duration, err error) {
		for _, p := range processes {
			t, err := cpuTime(p.PID())
			if err != nil {
				return 0, err
			}
			total += t
		}
		return total, nil
	}
	time.Sleep(2 * time.Second) // what belongs to the opening
	before, err := spent()
	if err != nil {
		return ratio.Row{}, err
	}
	time.Sleep(idleFor)
	after, err := spent()
	if err != nil {
		return ratio.Row{}, err
	}
	share := 100 * float64(after-before) / float64(idleFor)
	return ratio.Row{
		What:   fmt.Sprintf("%d dynamic connections, nobody changing: %% of one CPU, server and clients", dynamicConnections),
		AtMost: 0.1, Median: share,
	}, nil
}

// cpuTime returns what the threads of a process have run for (proc(5), schedstat), to the nanosecond.
func cpuTime(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that has ended
		}
		run, _, _ := bytes.Cut(b, []byte(" "))
		ns, err := strconv.ParseInt(string(run), 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ns)
	}
	return total, nil
}

// idleServer is the role of the server of the dynamic connections. It has read from each and enters no scope.
func idleServer(args []string) error {
	l, err := guise.Listen(args[0], nil)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("listening")
	conns := make([]*guise.Conn, 0, dynamicConnections)
	for range dynamicConnections {
		c, err := l.AcceptPipe()
		if err != nil {
			return err
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return err
		}
		conns = append(conns, c)
	}
	fmt.Println("all are there")
	role.AwaitEnd()
	for _, c := range conns {
		c.Close()
	}
	return nil
}

// idleClient is the role of a process with many of them.
func idleClient(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for range n {
		c, err := openDynamic(args[0])
		if err != nil {
			return err
		}
		defer c.Close()
	}
	fmt.Println("connected")
	role.AwaitEnd()
	return nil
}
