package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/role"
	attacker "github.com/guise-project/guise/internal/hostile"
)

// A hostile user has a file system of its own, in a mount namespace, which never answers when a file is closed. Two processes are in it:
// one is its server, and the other puts its files into guise's servers.

// device is /dev/fuse as most machines have it, for everybody. Not all do.
func (b besieged) device() string     { return filepath.Join(string(b), "fuse") }
func (b besieged) mountPoint() string { return filepath.Join(string(b), "mounted") }

// prepareFUSE makes what the user needs.
func prepareFUSE(b besieged) error {
	if err := os.Mkdir(b.mountPoint(), 0o755); err != nil {
		return err
	}
	const number = 10<<8 | 229 // of /dev/fuse
	if err := unix.Mknod(b.device(), unix.S_IFCHR|0o666, number); err != nil {
		return fmt.Errorf("making a device for FUSE: %w", err)
	}
	return os.Chmod(b.device(), 0o666)
}

var fuseAttacks = []attack{
	inNamespace("sends files whose close(2) never ends", "hostile file server", unix.CLONE_NEWNS),
}

// beFileServer is the role of the file system's server.
func beFileServer(args []string) error {
	b := besieged(args[0])
	if err := unix.Mount(b.device(), "/dev/fuse", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting a device for FUSE: %w", err)
	}
	f, err := attacker.MountFUSE(b.mountPoint(), attacker.Flush)
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := role.Start(nil, nil, "hostile file sender", args...)
	if err != nil {
		return err
	}
	go endWithInput()
	for {
		line, err := p.Line()
		if err != nil {
			return err
		}
		fmt.Println(line)
	}
}

// beFileSender is the role of the other. It must not close a file itself.
func beFileSender(args []string) error {
	h := &hostileOne{besieged: besieged(args[0])}
	go endWithInput()
	fd, err := unix.Open(filepath.Join(h.mountPoint(), "file"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a file of its own: %w", err)
	}
	for _, place := range placed {
		go func() {
			for {
				err := eachWay(h, place.put, func(pipe int, message string, n int) error {
					fds := make([]int, n)
					for i := range fds {
						fds[i] = fd
					}
					return send(pipe, message, fds...)
				})
				if err != nil {
					time.Sleep(time.Millisecond)
				}
			}
		}()
	}
	select {}
}
