package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// commandErrors is the standard error of the commands, which comes out at the server's.
type commandErrors struct {
	file     *os.File // what the commands get
	from     *os.File // where it is read, nil if they have the server's own
	finished chan struct{}
}

// newCommandErrors makes it. Commands are under the rule of their clients, so they get the server's own only where nothing but
// writing can be done with it: a client could empty a file, the log with it, and read what is typed on a terminal.
func newCommandErrors() (*commandErrors, error) {
	if onlyForWriting(int(os.Stderr.Fd())) {
		return &commandErrors{file: os.Stderr}, nil
	}
	from, file, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making the commands' standard error: %w", err)
	}
	e := &commandErrors{file: file, from: from, finished: make(chan struct{})}
	go func() {
		defer close(e.finished)
		buf := make([]byte, chunk)
		for {
			n, err := from.Read(buf)
			// A disk that is full must not hold the commands up.
			_, _ = os.Stderr.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	return e, nil
}

// onlyForWriting reports whether fd is a pipe, a socket, or a device that is no terminal.
func onlyForWriting(fd int) bool {
	var stat unix.Stat_t
	if unix.Fstat(fd, &stat) != nil {
		return true // there is none
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFIFO, unix.S_IFSOCK:
		return true
	case unix.S_IFCHR:
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		return err != nil
	}
	return false
}

// finish takes in what the commands have written. Programs that they left behind may still have it open, and are not waited for.
func (e *commandErrors) finish() {
	if e.from == nil {
		return
	}
	e.file.Close()
	_ = e.from.SetReadDeadline(time.Unix(1, 0))
	<-e.finished
	raw, err := e.from.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		left, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		if err != nil || left == 0 {
			return
		}
		buf := make([]byte, left)
		n, err := unix.Read(int(fd), buf)
		if err == nil || errors.Is(err, unix.EAGAIN) {
			_, _ = os.Stderr.Write(buf[:max(n, 0)])
		}
	})
	e.from.Close()
}
