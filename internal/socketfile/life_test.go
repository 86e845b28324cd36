package socketfile

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/without"
)

// abandon leaves a socket that no process has.
func abandon(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err, unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Close(fd))
}

func TestLifeOfASocket(t *testing.T) {
	dir := base(t)
	bound := func(t *testing.T, name string, kind int) int {
		fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		must(t, err, unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, name)}))
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	listening := func(kind int) func(t *testing.T, name string) {
		return func(t *testing.T, name string) {
			fd := bound(t, name, kind)
			must(t, unix.Listen(fd, 0))
			t.Cleanup(func() {
				if client, _, err := unix.Accept(fd); err != unix.EAGAIN {
					t.Errorf("the server had a client: accept gives %d, %v", client, err)
				}
			})
		}
	}
	server := func(flags uintptr) func(t *testing.T, name string) {
		return func(t *testing.T, name string) {
			if err := without.Namespaces(flags); err != nil {
				t.Skip("no namespaces here:", err)
			}
			if said := play(t, "server", &syscall.SysProcAttr{Cloneflags: flags}, filepath.Join(dir, name)); said != "ready" {
				t.Fatalf("the server says %q", said)
			}
		}
	}
	for _, test := range []struct {
		name, file string
		make       func(t *testing.T, name string)
		want       Life
	}{
		{"no file", "none", func(*testing.T, string) {}, None},
		{"no directory", "none/none", func(*testing.T, string) {}, None},
		{"in a file", "file/none", func(t *testing.T, name string) { must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)) }, None},
		{"a stream", "stream", listening(unix.SOCK_STREAM), Live},
		{"of messages", "messages", listening(unix.SOCK_SEQPACKET), Live},
		{"bound and not listening yet", "bound", func(t *testing.T, name string) { bound(t, name, unix.SOCK_STREAM) }, Live},
		{"of messages, bound and not listening yet", "bound2", func(t *testing.T, name string) { bound(t, name, unix.SOCK_SEQPACKET) }, Live},
		{"datagrams", "datagrams", func(t *testing.T, name string) { bound(t, name, unix.SOCK_DGRAM) }, Live},
		{"of a process", "process", server(0), Live},
		{"of a process in another network namespace", "net", server(unix.CLONE_NEWNET), Live},
		{"of a process in another mount namespace", "mnt", server(unix.CLONE_NEWNS), Live},
		{"a dead stream", "dead", func(t *testing.T, name string) {
			abandon(t, filepath.Join(dir, name))
		}, Dead},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.make(t, test.file)
			for range 3 {
				if got, err := LifeOf(filepath.Join(dir, test.file)); got != test.want || err != nil {
					t.Errorf("LifeOf = %d, %v, want %d", got, err, test.want)
				}
			}
		})
	}
	t.Run("no permission", func(t *testing.T) {
		listening(unix.SOCK_STREAM)(t, "mine")
		must(t, os.Chmod(filepath.Join(dir, "mine"), 0o600))
		asUser(t, 61001, func() {
			if got, err := LifeOf(filepath.Join(dir, "mine")); got != Unknown || err != unix.EACCES {
				t.Errorf("LifeOf = %d, %v, want Unknown and EACCES", got, err)
			}
		})
	})
}

// TestOnlyADeadSocketIsReplaced: what can't be known is left alone.
func TestOnlyADeadSocketIsReplaced(t *testing.T) {
	needRoot(t, "a directory of another user's")
	path := base(t)
	must(t, os.Chown(path, 61001, 61001))
	abandon(t, filepath.Join(path, "pipe"))
	// Dead; but root's and closed to the user, who can't find that out.
	must(t, os.Chmod(filepath.Join(path, "pipe"), 0o600))
	before, err := os.Lstat(filepath.Join(path, "pipe"))
	must(t, err)
	asUser(t, 61001, func() {
		d, err := Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer d.Close()
		if fd, _, err := d.Listen("pipe", asked); err == nil {
			unix.Close(fd)
			t.Error("it listens")
		}
	})
	if after, err := os.Lstat(filepath.Join(path, "pipe")); err != nil || !os.SameFile(before, after) {
		t.Errorf("the socket was removed: %v", err)
	}
}
