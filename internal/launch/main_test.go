package launch_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/launch"
	"github.com/guise-project/guise/internal/leftover"
)

func init() { runtime.LockOSThread() }

// roleVariable names what the test binary plays: a process that has this package's thread, and may hang or change its ids.
const roleVariable = "GUISE_TEST_LAUNCH_ROLE"

func TestMain(m *testing.M) {
	if name, ok := os.LookupEnv(roleVariable); ok {
		defer func() {
			if r := recover(); r != nil {
				fmt.Fprintf(os.Stderr, "role %s: %v\n", name, r)
				os.Exit(2)
			}
		}()
		roles[name]()
		os.Exit(0)
	}
	os.Exit(leftover.Main(m))
}

// patience only ends what hangs.
const patience = time.Minute

// role is a process that plays one. It goes on at its end when its standard input is closed.
type role struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	lines chan string
}

// play starts the test binary in a role.
func play(t *testing.T, name string, args ...string) *role {
	t.Helper()
	r := &role{t: t, cmd: exec.Command("/proc/self/exe"), lines: make(chan string, 100)}
	// The race detector would have each process sleep for a second at its end.
	r.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", roleVariable+"="+name)
	r.cmd.Args = append([]string{"launch.test"}, args...)
	r.cmd.Stderr = os.Stderr
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			r.lines <- s.Text()
		}
	}()
	return r
}

// end lets the role come to its end and waits for it.
func (r *role) end() {
	r.t.Helper()
	r.stdin.Close()
	for range r.lines { // until its standard output is closed
	}
	if err := r.cmd.Wait(); err != nil {
		r.t.Errorf("the role ended with %v", err)
	}
}

// waitEnd is how a role waits for the test's end.
func waitEnd() { _, _ = io.Copy(io.Discard, os.Stdin) }

// line returns the next line that the role says.
func (r *role) line() string {
	r.t.Helper()
	select {
	case line, ok := <-r.lines:
		if !ok {
			r.t.Errorf("the role ended before it said more")
		}
		return line
	case <-time.After(patience):
		r.t.Errorf("the role says nothing; it hangs")
		return ""
	}
}

// runProgram has Start start a program, waits for it and returns what it wrote.
func runProgram(argv ...string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer null.Close()
	pid, err := launch.Start(argv[0], argv, []string{"PATH=/usr/bin:/bin"}, []int{int(null.Fd()), int(w.Fd()), int(null.Fd())}, &syscall.SysProcAttr{Setsid: true})
	w.Close()
	if err != nil {
		return "", err
	}
	var out strings.Builder
	_, err = bufio.NewReader(r).WriteTo(&out)
	var status unix.WaitStatus
	for {
		if _, waitErr := unix.Wait4(pid, &status, 0, nil); waitErr != unix.EINTR {
			break
		}
	}
	if err == nil && status != 0 {
		err = fmt.Errorf("wait status %#x", status)
	}
	return out.String(), err
}
