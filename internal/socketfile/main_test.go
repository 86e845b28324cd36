package socketfile

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/testdir"
)

// role, in the environment of the test binary, says what else it is to be.
const role = "GUISE_TEST_SOCKETFILE_ROLE"

// A thread whose ids a test changes ends with its goroutine, but for the first, which the runtime never ends: the main goroutine keeps it.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		os.Exit(leftover.Main(m))
	case "server":
		if _, err := net.Listen("unix", os.Args[1]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
	case "without proc":
		withoutProc(os.Args[1], os.Args[2])
	}
}

// play starts the test binary in a role, and returns the first thing that it says. It ends with the test.
func play(t *testing.T, name string, attr *syscall.SysProcAttr, args ...string) string {
	t.Helper()
	command := exec.Command("/proc/self/exe", args...)
	command.Env = append(os.Environ(), role+"="+name, "GORACE=atexit_sleep_ms=0")
	command.SysProcAttr = attr
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		command.Wait()
	})
	said := make([]byte, 4096)
	n, _ := out.Read(said)
	return strings.TrimSpace(string(said[:n]))
}

func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: " + why)
	}
}

// onAThread runs f on a thread of its own, which ends with it.
func onAThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocks
		f()
	}()
	<-done
}

// asUser runs f on a thread that is another user for good, without capabilities.
func asUser(t *testing.T, uid int, f func()) {
	t.Helper()
	needRoot(t, "a thread that is another user")
	onAThread(func() {
		for _, call := range [][2]uintptr{{unix.SYS_SETGROUPS, 0}, {unix.SYS_SETRESGID, uintptr(uid)}, {unix.SYS_SETRESUID, uintptr(uid)}} {
			id := call[1]
			if _, _, errno := unix.RawSyscall(call[0], id, id, id); errno != 0 {
				t.Errorf("becoming uid %d: %v", uid, errno)
				return
			}
		}
		f()
	})
}

// open opens a directory until the test ends.
func open(t *testing.T, path string) *Directory {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// base makes a directory in which the tests can put what they like.
func base(t *testing.T) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(testdir.Open(t, 0o755))
	must(t, err)
	return path
}

var asked = Options{Type: unix.SOCK_STREAM, Mode: 0o666, GID: -1, Backlog: 1}
