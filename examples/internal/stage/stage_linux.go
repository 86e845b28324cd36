// Package stage runs the examples for their tests: each as a process of its own, which is the test binary once more, as an account
// of its own.
package stage

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/token"
)

// environment is how the test binary knows that it is to be the example.
const environment = "GUISE_EXAMPLE=1"

// Main is for TestMain: it runs the tests and returns the exit status, or runs the example's main in a process that [Start] or [Run] made.
func Main(m *testing.M, example func()) int {
	if os.Getenv("GUISE_EXAMPLE") == "1" {
		example()
		return 0
	}
	return leftover.Main(m)
}

// NeedRoot skips the test without root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("running programs as several users takes root")
	}
}

// Account is a user by number, with capabilities.
type Account struct {
	UID          uint32
	Capabilities []uintptr
}

// Services are the accounts that a service of guise's can have: root's, and an ordinary one with the two capabilities that it takes.
var Services = map[string]Account{
	"as root":                             {},
	"as an account with two capabilities": {UID: 61000, Capabilities: []uintptr{token.CapSetuid, token.CapSetgid}},
}

func command(a Account, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), environment, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: a.Capabilities, Pdeathsig: syscall.SIGKILL}
	if int(a.UID) != os.Geteuid() { // an ordinary user can't even become itself, because of the groups
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.UID, Gid: a.UID}
	}
	return cmd
}

// Start starts the example as an account, waits for its first line on standard error, which says that it serves, and ends it with
// SIGTERM when the test ends. It returns its process id.
func Start(t testing.TB, a Account, args ...string) int {
	t.Helper()
	cmd := command(a, "/proc/self/exe", args...)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Pdeathsig is of the thread that starts the process: the runtime must not end it.
	runtime.LockOSThread()
	err = cmd.Start()
	runtime.UnlockOSThread()
	if err != nil {
		t.Fatal(err)
	}
	said := &log{first: make(chan struct{})}
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(said, out)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer late.Stop()
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v ended with %v", args, err)
		}
		if t.Failed() {
			t.Logf("%v said:\n%s", args, said)
		}
	})
	select {
	case <-said.first:
	case <-read:
		t.Fatalf("%v does not serve", args)
	}
	return cmd.Process.Pid
}

// log is what a program has said.
type log struct {
	mu    sync.Mutex
	text  bytes.Buffer
	first chan struct{} // closed once there is a line
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := bytes.IndexByte(l.text.Bytes(), '\n')
	l.text.Write(b)
	if before < 0 && bytes.IndexByte(b, '\n') >= 0 {
		close(l.first)
	}
	return len(b), nil
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Run runs the example as an account to its end, and returns what it wrote to standard output. The error has what it wrote to
// standard error.
func Run(a Account, args ...string) (string, error) { return RunProgram(a, "/proc/self/exe", args...) }

// RunProgram is Run for another program.
func RunProgram(a Account, name string, args ...string) (string, error) {
	cmd := command(a, name, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.Output()
	if err != nil {
		line, _ := bufio.NewReader(&said).ReadString('\n')
		err = errors.Join(err, errors.New(line))
	}
	return string(out), err
}

// Owner returns the uid of a file's owner.
func Owner(path string) (uint32, error) {
	var s syscall.Stat_t
	err := syscall.Lstat(path, &s)
	return s.Uid, err
}
