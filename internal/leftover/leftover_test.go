package leftover_test

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/leftover"
)

// The role that the test binary plays in place of running tests: what it leaves behind.
const leaving = "GUISE_TEST_LEAVE"

func TestMain(m *testing.M) {
	release, stop := make(chan struct{}), func() {}
	if os.Getenv(leaving) != "" {
		leftover.Patience = time.Second // what is left here stays
	}
	switch os.Getenv(leaving) {
	case "descriptor":
		f, err := os.Open("/dev/null")
		if err != nil {
			panic(err)
		}
		defer runtime.KeepAlive(f)
	case "child":
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		stop = func() { cmd.Process.Kill(); cmd.Wait() }
	case "thread":
		ready := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			syscall.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 61001, ^uintptr(0))
			close(ready)
			<-release
		}()
		<-ready
	case "groups":
		ready := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			group := []uint32{61009}
			syscall.RawSyscall(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&group[0])), 0)
			close(ready)
			<-release
		}()
		<-ready
	}
	status := leftover.Main(m)
	close(release)
	stop()
	os.Exit(status)
}

func TestWhatIsLeftOverIsFound(t *testing.T) {
	if os.Getenv(leaving) != "" {
		t.Skip("this is the process that leaves something")
	}
	tests := []struct {
		leave, says string
		root        bool
	}{
		{"descriptor", "left open: /dev/null", false},
		{"child", "child processes are left", false},
		{"thread", "61001", true},
		{"groups", "61009", true},
	}
	for _, test := range tests {
		t.Run(test.leave, func(t *testing.T) {
			if test.root && os.Geteuid() != 0 {
				t.Skip("needs root: it changes a thread's ids")
			}
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestWhatIsLeftOverIsFound$")
			cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", leaving+"="+test.leave)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), test.says) {
				t.Errorf("leaving a %s: error %v, output\n%s\nwant a failure that says %q", test.leave, err, out, test.says)
			}
		})
	}
}
