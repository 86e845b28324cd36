package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// commandErrors is the standard error of one command: a pipe of its own, whose lines go to the log as its client's. Commands are under the
// rule of their clients, who can take a descriptor out of them (pidfd_getfd(2)): of the server's own one could empty a file, read a
// terminal, shut down a socket, and shrink or unblock a pipe for everybody.
type commandErrors struct {
	file     *os.File // what the command gets
	from     *os.File
	log      *slog.Logger
	finished chan struct{}

	line    []byte // that has no end yet
	told    int    // bytes
	leftOut int    // bytes
}

const (
	// longestErrorLine is how much of a line the log has, in bytes, before it goes on in another.
	longestErrorLine = 1 << 10
	// mostErrors is how much of a command's standard error the log has, in bytes.
	mostErrors = 16 << 10
	// errorsEvery is how long a command waits that writes more than a chunk at once.
	errorsEvery = 5 * time.Millisecond
)

// newCommandErrors makes it. What the command writes is told log.
func newCommandErrors(log *slog.Logger) (*commandErrors, error) {
	from, file, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making the command's standard error: %w", err)
	}
	return &commandErrors{file: file, from: from, log: log, finished: make(chan struct{})}, nil
}

// close lets go of it where the command was not started.
func (e *commandErrors) close() {
	e.file.Close()
	e.from.Close()
}

// read begins to read what the command, which has been started, writes.
func (e *commandErrors) read() {
	e.file.Close()
	go func() {
		defer close(e.finished)
		buf := make([]byte, chunk)
		for {
			n, err := e.from.Read(buf)
			e.take(buf[:n])
			if err != nil {
				return
			}
			if n == len(buf) {
				time.Sleep(errorsEvery)
			}
		}
	}()
}

// take takes in what was read.
func (e *commandErrors) take(b []byte) {
	for len(b) > 0 {
		part, rest, ended := bytes.Cut(b, []byte{'\n'})
		if room := longestErrorLine - len(e.line); len(part) > room {
			part, rest, ended = b[:room], b[room:], true
		}
		e.line = append(e.line, part...)
		if b = rest; ended {
			e.tell()
		}
	}
}

// tell tells the log of a line.
func (e *commandErrors) tell() {
	if e.told += len(e.line); e.told > mostErrors {
		e.leftOut += len(e.line)
	} else {
		e.log.Info("command wrote to its standard error", "text", string(e.line))
	}
	e.line = e.line[:0]
}

// finish takes in what the command has written until it ended. Programs that it left behind may still have the pipe, and are not waited for.
func (e *commandErrors) finish() {
	_ = e.from.SetReadDeadline(time.Unix(1, 0))
	<-e.finished
	// What is in the pipe now: the deadline keeps from reading what comes later.
	for buf := make([]byte, chunk); ; {
		n, err := e.readNow(buf)
		e.take(buf[:n])
		if err != nil || e.told > mostErrors {
			break
		}
	}
	if len(e.line) > 0 {
		e.tell()
	}
	if e.leftOut > 0 {
		e.log.LogAttrs(context.Background(), slog.LevelWarn, "command wrote more to its standard error than the log takes", slog.Int("bytesLeftOut", e.leftOut))
	}
	e.from.Close()
}

// readNow reads without waiting.
func (e *commandErrors) readNow(b []byte) (n int, err error) {
	raw, err := e.from.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), b) })
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), errors.Join(controlErr, err)
}
