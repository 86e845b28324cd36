package guise_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/testdir"
)

// TestContextStaysWhenTheConnectionIsHandedOn has a program of another user, started with the client's connection as its standard
// output and error, write to the server: who writes is never who the client is.
func TestContextStaysWhenTheConnectionIsHandedOn(t *testing.T) {
	needRoot(t)
	alice := identity(t, 61001, 61001)
	for _, tracking := range []guise.Tracking{guise.Static, guise.Dynamic} {
		for _, to := range []uint32{0, 61002} {
			t.Run(fmt.Sprintf("%v, to uid %d", tracking, to), func(t *testing.T) {
				near, server := pair(t, listenOn(t, nil), alice, &guise.QoS{Tracking: tracking})
				raw, err := near.SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				var copied int
				if err := raw.Control(func(fd uintptr) { copied, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
					t.Fatal(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				f := os.NewFile(uintptr(copied), "connection")
				defer f.Close()
				cmd := exec.Command("/bin/echo", "hello")
				cmd.Stdout, cmd.Stderr = f, f
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: to, Gid: to}}
				if err := cmd.Run(); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 6)
				if _, err := io.ReadFull(server, buf); err != nil || string(buf) != "hello\n" {
					t.Fatalf("read %q, %v, want what the program wrote", buf, err)
				}
				actsAs(t, "after another user's program wrote", server, alice)
			})
		}
	}
}

// TestContextStaysWhenTheClientExecutesASetUserIDProgram has a client become a program that is root, with the connection as its
// standard output.
func TestContextStaysWhenTheClientExecutesASetUserIDProgram(t *testing.T) {
	needRoot(t)
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		t.Skipf("python is not installed: %v", err)
	}
	const script = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
os.dup2(s.fileno(), 1)
os.execv(sys.argv[2], ["id", "-u"])`
	program := filepath.Join(testdir.Open(t, 0o755), "id")
	b, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	l := listenOn(t, nil)
	cmd := exec.Command(python, "-c", script, l.Addr().String(), program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61001, Gid: 61001, Groups: []uint32{}}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := acceptUnread(t, l)
	if b, err := io.ReadAll(server); err != nil || string(b) != "0\n" {
		t.Fatalf("read %q, %v; want what the set-user-ID program wrote as root", b, err)
	}
	actsAs(t, "after the client executed a set-user-ID program", server, identity(t, 61001, 61001))
}
