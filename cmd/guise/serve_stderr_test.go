package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
)

// serveTo starts a server whose standard error is f.
func serveTo(t *testing.T, f *os.File, script string) (path string, server *exec.Cmd) {
	t.Helper()
	path = filepath.Join(testdir.Open(t, 0o755), "pipe")
	server = guiseProgram(t, "serve", path, "--", "sh", "-c", script)
	server.Stderr = f
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	eventually(t, "the server listens", func() bool { return lifeOf(path) == living })
	return path, server
}

// end ends a server.
func end(t *testing.T, server *exec.Cmd) {
	t.Helper()
	mustEnd := watch(t, server.Process.Pid)
	if err := server.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	mustEnd("the server")
	if err := server.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

func logFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.CreateTemp(testdir.Open(t, 0o700), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// What a command does to its standard error must not be done to the server's, whatever that is.
func TestServeCommandErrors(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fromPipe, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer fromPipe.Close()
	defer pipe.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, socket := os.NewFile(uintptr(pair[0]), "near"), os.NewFile(uintptr(pair[1]), "socket")
	defer near.Close()
	defer socket.Close()
	_, far := openPTY(t)
	for _, c := range []struct {
		name string
		file *os.File
	}{
		{"file", logFile(t)},
		{"terminal", far},
		{"pipe", pipe},
		{"socket", socket},
		{"null", null},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, server := serveTo(t, c.file, "readlink /proc/self/fd/2")
			var servers unix.Stat_t
			if err := unix.Fstat(int(c.file.Fd()), &servers); err != nil {
				t.Fatal(err)
			}
			r := run(t, "", guiseProgram(t, "call", path))
			if !strings.HasPrefix(r.out, "pipe:[") || r.out == fmt.Sprintf("pipe:[%d]\n", servers.Ino) {
				t.Errorf("a command's standard error is %q, want a pipe of its own; the server's has inode %d", r.out, servers.Ino)
			}
			end(t, server)
		})
	}
}

// What commands write is in the log when the server has ended, though a program that was left behind could still write.
func TestServeCommandErrorsArrive(t *testing.T) {
	log := logFile(t)
	path, server := serveTo(t, log, "setsid sleep 1000 >&- <&- & echo $!; seq 20000 >&2")
	before := descriptorsOf(t, server.Process.Pid)
	r := run(t, "", guiseProgram(t, "call", path))
	left, err := strconv.Atoi(strings.TrimSpace(r.out))
	if err != nil {
		t.Fatalf("%v: %s", err, r.err)
	}
	defer unix.Kill(left, unix.SIGKILL)
	eventually(t, "the server has no more descriptors than before the client", func() bool {
		return descriptorsOf(t, server.Process.Pid) <= before
	})
	end(t, server)
	got, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		` msg="command's standard error" `, fmt.Sprintf(" line=1 uid=%d pid=", os.Getuid()), " line=500 ", " line=19997 ", " line=20000 ",
		` msg="command's standard error left out" `, " msg=ended ",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the log has not %q in it:\n%s", want, got)
		}
	}
	logged, leftOut := 0, 0
	for line := range strings.Lines(string(got)) {
		if _, lines, ok := strings.Cut(line, " lines="); ok {
			n, _ := strconv.Atoi(strings.Fields(lines)[0])
			leftOut += n
		} else if strings.Contains(line, ` msg="command's standard error" `) {
			logged++
		}
	}
	if logged+leftOut != 20000 {
		t.Errorf("%d lines were logged, and %d are said to be left out, of 20000", logged, leftOut)
	}
}

// descriptorsOf returns how many descriptors a process has.
func descriptorsOf(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
