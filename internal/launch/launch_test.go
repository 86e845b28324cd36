package launch

import (
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// status waits for a child and returns its exit status.
func status(t *testing.T, pid int) int {
	t.Helper()
	var s unix.WaitStatus
	for err := error(unix.EINTR); err == unix.EINTR; {
		if _, err = unix.Wait4(pid, &s, 0, nil); err != nil && err != unix.EINTR {
			t.Fatalf("waiting for process %d: %v", pid, err)
		}
	}
	return s.ExitStatus()
}

func TestProgramHasTheDescriptorsThatItIsGivenAndNoOthers(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	secret, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	unix.FcntlInt(secret.Fd(), unix.F_SETFD, 0) // that would pass an exec
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	pid, err := Start("/bin/sh", []string{"sh", "-c", `ls -l /proc/$$/fd; echo "$V"`}, []string{"V=set", "PATH=/bin:/usr/bin"},
		[]int{int(null.Fd()), int(w.Fd()), int(null.Fd())}, &syscall.SysProcAttr{Setsid: true})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if s := status(t, pid); s != 0 {
		t.Errorf("the program's status is %d", s)
	}
	if text := string(out); strings.Contains(text, "/status") || strings.Contains(text, "eventpoll") || !strings.Contains(text, "set\n") {
		t.Errorf("the program says\n%s", text)
	}
}

func TestProgramThatIsNotThere(t *testing.T) {
	if _, err := Start("/nonexistent", []string{"x"}, nil, nil, nil); err != syscall.ENOENT {
		t.Errorf("starting what is not there: %v, want ENOENT", err)
	}
}

func TestManyStartAtOnceWhileGarbageIsCollected(t *testing.T) {
	done := make(chan error)
	const many = 50
	for range many {
		go func() {
			pid, err := Start("/bin/true", []string{"true"}, nil, []int{0, 1, 2}, nil)
			if err == nil {
				runtime.GC()
				status(t, pid)
			}
			done <- err
		}()
	}
	for range many {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestThreadChangesItsIDsWithTheOthers(t *testing.T) {
	if err := Prepare(); err != nil {
		t.Fatal(err)
	}
	// It must not be in a call in which the runtime can't reach it.
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_GETUID, 0, 0, 0); e != 0 && e != unix.ENOTSUP {
		t.Error(e)
	}
}

func TestStartLeavesNothingInTheTable(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if err := Prepare(); err != nil {
		t.Fatal(err)
	}
	before := count()
	for range 20 {
		pid, err := Start("/bin/true", []string{"true"}, nil, []int{0, 1, 2}, nil)
		if err != nil {
			t.Fatal(err)
		}
		status(t, pid)
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors after 20 programs, %d before", after, before)
	}
}
