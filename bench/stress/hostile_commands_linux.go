package main

import (
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// startAndWait runs a program to its end.
func startAndWait(program string, args ...string) error { return exec.Command(program, args...).Run() }

// command has guise serve's shell run something as this user.
func (h *hostileOne) command(line string) (pipe int) {
	fd := openSocket(h.serve())
	if err := send(fd, "!"+line+"\n"); err != nil {
		unix.Close(fd)
		panic(err)
	}
	return fd
}

// await waits until the server has answered something.
func await(fd int) { read(fd) }

// killAll ends this user's other processes of a name.
func killAll(name string) {
	for _, pid := range processesOf(func(_ int, status string) bool { return strings.HasPrefix(status, "Name:\t"+name+"\n") }) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// ofCommand is an attack with a command that the client ends after a while from its own side.
func ofCommand(name, line, ends string, do func(h *hostileOne, fd int)) attack {
	return attack{name, func(h *hostileOne) error {
		fd := h.command(line)
		defer unix.Close(fd)
		await(fd)
		if do != nil {
			do(h, fd)
		}
		killAll(ends)
		return nil
	}}
}

func aWhile(*hostileOne, int) { time.Sleep(200 * time.Millisecond) }

var commandAttacks = []attack{
	ofCommand("has a command that never ends", "echo x; exec sleep 1001", "sleep", aWhile),
	ofCommand("has a command that never reads", "echo x; exec sleep 1001", "sleep", func(_ *hostileOne, fd int) {
		for range 100 {
			_ = send(fd, strings.Repeat("x", 8000))
		}
		time.Sleep(100 * time.Millisecond)
	}),
	ofCommand("reads nothing of what a command prints", "echo x; exec yes", "yes", aWhile),
	ofCommand("has a command stop itself", "echo x; kill -STOP $$", "sh", aWhile),
	ofCommand("has commands stay", "sleep 1001 & sleep 1001 & (trap '' TERM HUP; exec setsid sleep 1001) & echo x", "sleep", aWhile),
	ofCommand("prints to standard error without end", "echo x; exec yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >&2", "yes", aWhile),
	ofCommand("prints lines without end to standard error", "echo x; exec cat /dev/zero >&2", "cat", aWhile),
}

// errorAttacks are against what a command has as its standard error, which the client can take out of it.
var errorAttacks = []attack{
	{"takes its command's standard error", func(h *hostileOne) error {
		fd := h.command("echo $$; exec sleep 1002")
		defer unix.Close(fd)
		await(fd)
		defer killAll("sleep")
		for _, pid := range processesOf(func(int, string) bool { return true }) {
			takeErrors(pid)
		}
		return nil
	}},
}

// takeErrors does to a process's standard error what can be done to it.
func takeErrors(pid int) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, 2, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	runtime.KeepAlive(fd)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1)
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, linger)
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 4096)
	_ = unix.SetNonblock(fd, true)
	for range 100 {
		if _, err := unix.Write(fd, []byte(strings.Repeat("x", 4096))); err != nil {
			break
		}
	}
	_ = unix.Shutdown(fd, unix.SHUT_RDWR)
}
