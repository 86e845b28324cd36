package main

import (
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

// A client could empty a file that its command has, and read what is typed on a terminal.
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
	_, far := openPTY(t)
	for _, c := range []struct {
		name string
		file *os.File
		want string
	}{
		{"file", logFile(t), "fifo"},
		{"terminal", far, "fifo"},
		{"pipe", pipe, "fifo"},
		{"null", null, "character special file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, server := serveTo(t, c.file, "stat -Lc %F /proc/self/fd/2")
			run(t, "", guiseProgram(t, "call", path)).expect(t, "a command that looks at its standard error", 0, c.want+"\n")
			end(t, server)
		})
	}
}

// What commands write is there when the server has ended, though a program that was left behind could still write.
func TestServeCommandErrorsArrive(t *testing.T) {
	log := logFile(t)
	path, server := serveTo(t, log, "setsid sleep 1000 >&- <&- & echo $!; seq 20000 >&2")
	r := run(t, "", guiseProgram(t, "call", path))
	left, err := strconv.Atoi(strings.TrimSpace(r.out))
	if err != nil {
		t.Fatalf("%v: %s", err, r.err)
	}
	defer unix.Kill(left, unix.SIGKILL)
	end(t, server)
	got, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\n1\n2\n3\n", "\n19999\n20000\n", "msg=ended"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the log of %d bytes has not %q in it", len(got), want)
		}
	}
}

// What is in the pipe when the reader stops is taken in all the same.
func TestCommandErrorsFinish(t *testing.T) {
	from, file, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	log := logFile(t)
	defer func(stderr *os.File) { os.Stderr = stderr }(os.Stderr)
	os.Stderr = log
	if _, err := file.WriteString("last words\n"); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	close(stopped)
	(&commandErrors{file: file, from: from, finished: stopped}).finish()
	if got, err := os.ReadFile(log.Name()); string(got) != "last words\n" || err != nil {
		t.Errorf("the log has %q in it, %v", got, err)
	}
}
