package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/guise-project/guise/bench/internal/role"
)

const (
	followRounds = 1500
	// between is how long a round waits before the next change, so that everybody sleeps who would.
	between = 2 * time.Millisecond
	patient = 2 * time.Second
)

// chain is a changing client, and the servers that follow it, each in a scope.
type chain struct {
	board   *board
	client  *role.Process
	servers []*role.Process
	watched []int // of the servers, those with a busy thread
}

// startChain starts a chain of servers. watched are those that are timed; the last always is.
func startChain(dir, how string, hops int, clientAttr *syscall.SysProcAttr, watched ...int) (*chain, error) {
	c := &chain{watched: append(watched, hops-1)}
	shared := filepath.Join(dir, "board")
	var err error
	if c.board, err = openBoard(shared); err != nil {
		return nil, err
	}
	pipe := func(i int) string {
		if i == hops {
			return ""
		}
		return filepath.Join(dir, "hop"+strconv.Itoa(i))
	}
	for i := range hops {
		index := ""
		for _, w := range c.watched {
			if w == i {
				index = strconv.Itoa(i)
			}
		}
		// A collection would wait for the busy thread, which can hardly be preempted.
		p, err := role.Start(nil, []string{"GOGC=off"}, "hop", pipe(i), pipe(i+1), shared, index)
		if err != nil {
			c.stop()
			return nil, err
		}
		c.servers = append(c.servers, p)
		if _, err := p.Line(); err != nil {
			c.stop()
			return nil, err
		}
	}
	if c.client, err = role.Start(clientAttr, nil, "changer", pipe(0), how, shared); err == nil {
		_, err = c.client.Line()
	}
	for _, p := range c.servers {
		if err == nil {
			_, err = p.Line()
		}
	}
	if err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func (c *chain) stop() {
	if c.client != nil {
		c.client.Stop()
	}
	for _, p := range c.servers {
		p.Stop()
	}
}

// change has the client change once and waits until all that are watched have followed. It returns when they had, in microseconds
// after the change began.
func (c *chain) change() ([]float64, error) {
	before := c.board.round.Load()
	if _, err := c.client.Write([]byte{'x'}); err != nil {
		return nil, err
	}
	for begun := time.Now(); time.Since(begun) < patient; time.Sleep(between) {
		if took := c.took(before + 1); took != nil {
			return took, nil
		}
	}
	return nil, fmt.Errorf("a server did not follow its client within %v", patient)
}

// took returns nil if somebody has not followed yet in this round.
func (c *chain) took(round int64) []float64 {
	if c.board.round.Load() < round {
		return nil
	}
	took := make([]float64, len(c.watched))
	for i, w := range c.watched {
		seen := c.board.seen[w].Load()
		if seen == 0 {
			return nil
		}
		took[i] = float64(seen-c.board.changed.Load()) / 1e3
	}
	return took
}
