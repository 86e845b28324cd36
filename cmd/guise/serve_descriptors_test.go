package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
)

// What the server was started with is not the clients'.
func TestServeKeepsDescriptors(t *testing.T) {
	secret, err := os.CreateTemp(testdir.Open(t, 0o700), "")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	command := guiseProgram(t, "serve", path, "--", "sh", "-c", "[ -e /proc/self/fd/3 ] && echo inherited; echo done")
	command.ExtraFiles = []*os.File{secret} // as descriptor 3
	start(t, path, command)
	run(t, "", guiseProgram(t, "call", path)).expect(t, "a call", 0, "done\n")
}

func TestKeepDescriptors(t *testing.T) {
	for name, keep := range map[string]func() error{"at once": keepDescriptors, "each": keepEachDescriptor} {
		t.Run(name, func(t *testing.T) {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := keep(); err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				fd   int
				want int
			}{{fd, unix.FD_CLOEXEC}, {0, 0}, {1, 0}, {2, 0}} {
				if flags, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFD, 0); err != nil || flags != c.want {
					t.Errorf("descriptor %d has the flags %d, %v; want %d", c.fd, flags, err, c.want)
				}
			}
		})
	}
}
