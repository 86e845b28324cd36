package main

import (
	"context"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// grace is how long commands may take to end when the server does.
const grace = 5 * time.Second

// await waits for the command of a client to end, and ends it when ctx does. It returns what [exec.Cmd.Wait] does.
func await(ctx context.Context, client *token.Token, command *exec.Cmd) error {
	group := command.Process.Pid // it leads a session, and so a process group
	exited := make(chan struct{})
	go func() {
		waitExit(group)
		close(exited)
	}()
	select {
	case <-exited:
	case <-ctx.Done():
		signalGroup(client, group, unix.SIGTERM)
		select {
		case <-exited:
		case <-time.After(grace):
		}
		// What is left of the group goes too. Its number is still its own: its leader has not been waited for.
		signalGroup(client, group, unix.SIGKILL)
		<-exited
	}
	return command.Wait()
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
