package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
)

// handOver starts `guise serve` as systemd would for a socket unit, with f as its socket.
func handOver(t *testing.T, f *os.File, args ...string) *exec.Cmd {
	t.Helper()
	command := guiseProgram(t)
	command.Path = "/bin/sh"
	command.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec "$@"`, "sh", program(t), "serve"}, args...)
	command.ExtraFiles = []*os.File{f}
	return command
}

func socketFor(t *testing.T, network string) (path string, f *os.File) {
	t.Helper()
	path = filepath.Join(testdir.Open(t, 0o755), "handed-over")
	listener, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	defer listener.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if f, err = listener.File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return path, f
}

func TestServeHandedOverSocket(t *testing.T) {
	path, f := socketFor(t, "unix")
	s := start(t, path, handOver(t, f, "label", "--", "env"))
	s.waitLog("msg=listening", "pipe=label", "path="+path)
	r := run(t, "", guiseProgram(t, "call", path))
	if r.status != 0 || !strings.Contains(r.out, "IPCLOCALPATH="+path+"\n") {
		t.Errorf("a call of a socket that was handed over: exit status %d, %s; the command's environment:\n%s", r.status, r.err, r.out)
	}
	if strings.Contains(r.out, "LISTEN_") {
		t.Errorf("the command was told of the server's sockets:\n%s", r.out)
	}
	s.waitLog("client served", "pipe=label", "status=0")
	s.stop()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the server removed a socket that is systemd's: %v", err)
	}
}

func TestServeHandedOverSocketOfMessages(t *testing.T) {
	path, f := socketFor(t, "unixpacket")
	start(t, path, handOver(t, f, "--message", "label", "--", "cat"))
	run(t, "hello", guiseProgram(t, "call", path)).expect(t, "guise call", 0, "hello")
}

func TestServeHandedOverSocketOfAnotherKind(t *testing.T) {
	_, f := socketFor(t, "unix")
	r := run(t, "", handOver(t, f, "--message", "label", "--", "cat"))
	if r.status != statusFailed || !strings.Contains(r.err, "ListenSequentialPacket=") {
		t.Errorf("--message on a stream socket: exit status %d, want %d and what to change: %s", r.status, statusFailed, r.err)
	}
}

// What systemd hands over with other settings is no socket of a pipe.
func TestServeHandedOverSomethingElse(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	connected, other := os.NewFile(uintptr(pair[0]), ""), os.NewFile(uintptr(pair[1]), "")
	defer connected.Close()
	defer other.Close()
	for name, f := range map[string]*os.File{"a connection (Accept=yes)": connected, "a file": logFile(t)} {
		r := run(t, "", handOver(t, f, "label", "--", "cat"))
		if r.status != statusFailed || !hasAll(r.err, []string{"ListenStream=", "Accept=yes"}) {
			t.Errorf("%s: exit status %d, want %d and what to change: %s", name, r.status, statusFailed, r.err)
		}
	}
}
