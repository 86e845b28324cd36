package main

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/hostile"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// A server that holds files on the FUSE of a client can't fork: the child would wait for that client before it runs anything.
func TestServeClientsFilesKeepNoCommandFromStarting(t *testing.T) {
	needRoot(t)
	files, err := hostile.MountFUSE(testdir.Open(t, 0o777))
	if err != nil {
		t.Skip(err)
	}
	defer files.Close() // or the server could not end
	s := serveOn(t, nil, "sh", "-c", "id -u")
	fd, err := unix.Open(files.File, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	bob, err := token.FromIDs(61002, 61002, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		err := guise.RunAs(bob, func(*guise.Scope) error {
			client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(client)
			if err := unix.Connect(client, &unix.SockaddrUnix{Name: s.path}); err != nil {
				return err
			}
			return unix.Sendmsg(client, []byte("G"), unix.UnixRights(slices.Repeat([]int{fd}, 100)...), nil, unix.MSG_NOSIGNAL)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	go unix.Close(fd) // which waits, but takes it out of the table that this process forks with
	eventually(t, "the server closes a file of the client's", func() bool { return files.Waiting() > 0 })
	for range 3 {
		run(t, "", as(alice, guiseProgram(t, "call", s.path))).expect(t, "another client's call", 0, "61001\n")
	}
}
