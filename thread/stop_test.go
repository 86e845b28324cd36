package thread_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/internal/without"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// roles are what this test's binary does as a process of its own, because the process may end on it.
var roles = map[string]func(){
	"drop":                       func() { wearAnd(func() { capability.Sets{}.Set() }) },
	"seteuid":                    func() { wearAnd(func() { syscall.RawSyscall(unix.SYS_SETRESUID, 61001, 61001, 61001) }) },
	"unlock":                     func() { wearAnd(moveToAnotherThread) },
	"setgroups fails on leaving": func() { wearAnd(func() { deny(unix.SYS_SETGROUPS) }) },
	"setresgid fails on leaving": func() { wearAnd(func() { deny(unix.SYS_SETRESGID) }) },
	"setresuid fails on leaving": func() { wearAnd(func() { deny(unix.SYS_SETRESUID) }) },
	"capget fails on leaving":    func() { wearAnd(func() { deny(unix.SYS_CAPGET) }) },
	"setresgid fails":            func() { deny(unix.SYS_SETRESGID); fmt.Println("entered: " + enterError()) },
	"setgroups fails":            func() { deny(unix.SYS_SETGROUPS); fmt.Println("entered: " + enterError()) },
	"setresuid fails":            func() { deny(unix.SYS_SETRESUID); fmt.Println("entered: " + enterError()) },
	"getgroups fails":            func() { deny(unix.SYS_GETGROUPS); fmt.Println("entered: " + enterError()) },
	"getresuid fails":            func() { deny(unix.SYS_GETRESUID); fmt.Println("entered: " + enterError()) },
	"capget fails":               func() { deny(unix.SYS_CAPGET); fmt.Println("entered: " + enterError()) },
	"sched_getattr fails":        func() { deny(unix.SYS_SCHED_GETATTR); fmt.Println("entered: " + enterError()) },
}

// moveToAnotherThread unlocks the goroutine, of its lock and of the scope's, and yields to others until they have taken its
// thread.
func moveToAnotherThread() {
	before := unix.Gettid()
	runtime.UnlockOSThread()
	runtime.UnlockOSThread()
	for i := 0; unix.Gettid() == before; i++ {
		if i == 1_000_000 {
			fmt.Println("the goroutine stays on its thread")
			os.Exit(3)
		}
		woken := make(chan struct{})
		go func() { close(woken) }()
		<-woken
	}
}

const roleVariable = "GUISE_THREAD_TEST_ROLE"

func playRole() {
	name := os.Getenv(roleVariable)
	if name == "" {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		roles[name]()
	}()
	<-done
	fmt.Println("the process went on")
	os.Exit(0)
}

func deny(call uintptr) {
	if err := without.Call(call, unix.EPERM); err != nil {
		fmt.Println("seccomp:", err)
		os.Exit(3)
	}
}

func wearAnd(do func()) {
	t, err := token.FromIDs(61001, 61002, []uint32{61003})
	if err != nil {
		panic(err)
	}
	var w thread.Worn
	if err := w.Enter(t); err != nil {
		fmt.Println("entering:", err)
		os.Exit(3)
	}
	do()
	fmt.Println("leaving:", w.Leave())
}

func enterError() string {
	t, err := token.FromIDs(61001, 61002, []uint32{61003})
	if err != nil {
		panic(err)
	}
	var w thread.Worn
	err = w.Enter(t)
	b, _ := os.ReadFile("/proc/thread-self/status")
	clean := true
	for line := range bytes.Lines(b) { // a process may have such a number as well
		ids := bytes.HasPrefix(line, []byte("Uid:")) || bytes.HasPrefix(line, []byte("Gid:")) || bytes.HasPrefix(line, []byte("Groups:"))
		clean = clean && !(ids && bytes.Contains(line, []byte("6100")))
	}
	if err == nil {
		return "no error"
	}
	return fmt.Sprintf("%v; thread clean: %v", err, clean)
}

func TestProcessEndsWhereAThreadCannotBeRestored(t *testing.T) {
	needRoot(t)
	for _, role := range []string{
		"drop", "seteuid", "unlock",
		"setgroups fails on leaving", "setresgid fails on leaving", "setresuid fails on leaving", "capget fails on leaving",
	} {
		t.Run(role, func(t *testing.T) {
			out, err := runRole(role)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != thread.StopStatus {
				t.Errorf("the process ended with %v, want exit status %d; it printed:\n%s", err, thread.StopStatus, out)
			}
			if !strings.Contains(out, "guise: the process ends here:") {
				t.Errorf("the process did not say why it ended:\n%s", out)
			}
			if strings.Contains(out, "went on") {
				t.Errorf("the process ran on with a foreign thread:\n%s", out)
			}
		})
	}
}

func TestEnteringFailsWhole(t *testing.T) {
	needRoot(t)
	for _, role := range []string{"setgroups fails", "setresuid fails", "setresgid fails", "getgroups fails", "getresuid fails", "capget fails", "sched_getattr fails"} {
		t.Run(role, func(t *testing.T) {
			out, err := runRole(role)
			if err != nil || !strings.Contains(out, "operation not permitted; thread clean: true") {
				t.Errorf("a failing call on entering: %v, the process printed:\n%s\nwant the error, a thread without the client's ids, and that it goes on", err, out)
			}
		})
	}
}

func runRole(role string) (string, error) {
	out, err := roleCommand(role).CombinedOutput()
	return string(out), err
}

func roleCommand(role string) *exec.Cmd {
	return &exec.Cmd{Path: "/proc/self/exe", Args: []string{"guise-thread-test"}, Env: append(os.Environ(), roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")}
}
