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
		{"null", null, "fifo"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, server := serveTo(t, c.file, "stat -Lc %F /proc/self/fd/2")
			run(t, "", guiseProgram(t, "call", path)).expect(t, "a command that looks at its standard error", 0, c.want+"\n")
			end(t, server)
		})
	}
}

// What commands write is in the log when the server has ended, each line as its client's, though a program that was left behind could still
// write.
func TestServeCommandErrorsArrive(t *testing.T) {
	log := logFile(t)
	path, server := serveTo(t, log, `setsid sleep 1000 >&- <&- & echo $!; printf 'one\ntwo "\033[0m\nlevel=ERROR msg=forged\nlast' >&2`)
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
	for _, want := range []string{
		`msg="command wrote to its standard error" pipe=` + path + ` uid=0 pid=`, ` text=one`, ` text="two \"\x1b[0m"`,
		` text="level=ERROR msg=forged"`, ` text=last`, "msg=ended",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the log has not %s in it:\n%s", want, got)
		}
	}
}

func TestServeCommandErrorsAreBounded(t *testing.T) {
	for _, test := range []struct{ name, script string }{
		{"many lines", "seq 100000 >&2"},
		{"a line without end", "head -c 1000000 /dev/zero >&2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := logFile(t)
			path, server := serveTo(t, log, test.script)
			run(t, "", guiseProgram(t, "call", path)).expect(t, "a command that writes much to its standard error", 0, "")
			end(t, server)
			got, err := os.ReadFile(log.Name())
			if err != nil {
				t.Fatal(err)
			}
			if len(got) > 100*mostErrors {
				t.Errorf("the log has %d bytes", len(got))
			}
			if !strings.Contains(string(got), "bytesLeftOut=") {
				t.Errorf("the log does not say that something was left out; it ends with\n%s", got[max(0, len(got)-1000):])
			}
		})
	}
}

// A client can take its command's standard error, and do with it what it likes: it is that command's alone.
func TestServeCommandErrorsAreOfOneCommandAlone(t *testing.T) {
	first := serveOn(t, nil, "sh", "-c", `stat -Lc %i /proc/self/fd/2; true`)
	inodes := make(map[string]bool)
	for range 2 {
		r := run(t, "", guiseProgram(t, "call", first.path))
		inodes[strings.TrimSpace(r.out)] = true
	}
	if len(inodes) != 2 {
		t.Errorf("two commands have the same standard error: %v", inodes)
	}
}
