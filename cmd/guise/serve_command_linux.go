package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

var errServerEnds = errors.New("the server ended")

// await waits for the command of a client to end, and ends it when ctx does or it has come to a limit: why is not nil then.
func (s *server) await(ctx context.Context, r *running) (state *os.ProcessState, why, err error) {
	defer r.idle.stop()
	group := r.process.Pid // it leads a session, and so a process group
	exited := make(chan struct{})
	go func() {
		waitExit(group)
		close(exited)
	}()
	var late <-chan time.Time
	if s.limits.timeout > 0 {
		timer := time.NewTimer(s.limits.timeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-exited:
		state, err = r.process.Wait()
		return state, nil, err
	case <-ctx.Done():
		why = errServerEnds
	case <-late:
		why = fmt.Errorf("it ran for longer than %v (--timeout)", s.limits.timeout)
	case <-r.idle.over():
		why = fmt.Errorf("nothing passed for %v (--idle)", s.limits.idle)
	}
	signalGroup(r.client, group, unix.SIGTERM)
	grace := time.NewTimer(s.limits.grace)
	defer grace.Stop()
	select {
	case <-exited:
		// A shell ends at once, and those that it started may need the time.
		awaitGroup(group, grace.C)
	case <-grace.C:
	}
	// What is left of the group goes too. Its number is still its own: its leader has not been waited for.
	signalGroup(r.client, group, unix.SIGKILL)
	<-exited
	state, err = r.process.Wait()
	return state, why, err
}

// waitExit waits until a child has ended, without taking its process id away from it.
func waitExit(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// signalGroup signals the process group of a client's command. A server without CAP_KILL may do that only as the client.
func signalGroup(client *token.Token, group int, signal unix.Signal) {
	if unix.Kill(-group, signal) != unix.EPERM {
		return
	}
	_ = guise.RunAs(client, func(*guise.Scope) error { return unix.Kill(-group, signal) }) //guise:scope-ok as the server it may not
}
