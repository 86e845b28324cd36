package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// askPassword asks for a password on the process's terminal, which does not show it.
func askPassword(prompt string) (string, error) {
	terminal, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("asking for the password: there is no terminal (%w); take --password-file", err)
	}
	defer terminal.Close()
	fd := int(terminal.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("asking for the password on the terminal: %w", err)
	}
	quiet := *before
	quiet.Lflag = quiet.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &quiet); err != nil {
		return "", fmt.Errorf("asking for the password on the terminal: %w", err)
	}
	// Who interrupts it gets the terminal back as it was.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	done := make(chan struct{})
	restored := make(chan struct{})
	go func() {
		defer close(restored)
		select {
		case <-done:
			_ = unix.IoctlSetTermios(fd, unix.TCSETSF, before)
			signal.Stop(interrupted)
		case s := <-interrupted:
			_ = unix.IoctlSetTermios(fd, unix.TCSETSF, before)
			fmt.Fprintln(os.Stderr)
			signal.Reset()
			_ = unix.Kill(os.Getpid(), s.(syscall.Signal))
		}
	}()
	fmt.Fprint(terminal, prompt)
	secret, err := firstLine(terminal, "the password")
	close(done)
	<-restored
	fmt.Fprintln(terminal)
	return secret, err
}

// firstLine reads a line, without its end, and no more of a terminal than that.
func firstLine(r io.Reader, what string) (string, error) {
	b := make([]byte, 0, longestPassword+1)
	for len(b) <= longestPassword {
		n, err := r.Read(b[len(b) : len(b)+1])
		b = b[:len(b)+n]
		if n == 1 && b[len(b)-1] == '\n' {
			b = b[:len(b)-1]
			break
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", what, err)
		}
	}
	if n := len(b); n > 0 && b[n-1] == '\r' {
		b = b[:n-1]
	}
	switch {
	case len(b) == 0:
		return "", fmt.Errorf("%s is empty", what)
	case len(b) > longestPassword:
		return "", errors.New(what + " is too long")
	}
	return string(b), nil
}
