package launch

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/hostile"
)

// TestFileOnAStrangersFUSEKeepsNoProgramFromStarting, which it does where the process forks.
func TestFileOnAStrangersFUSEKeepsNoProgramFromStarting(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a file system")
	}
	if err := Prepare(); err != nil {
		t.Fatal(err)
	}
	f, err := hostile.MountFUSE(t.TempDir())
	if err != nil {
		t.Skip(err)
	}
	fd, err := unix.Open(f.File, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		f.Close()
		t.Fatal(err)
	}
	pid, err := Start("/bin/true", []string{"true"}, nil, []int{0, 1, 2}, nil)
	if err != nil {
		t.Error(err)
	} else if s := status(t, pid); s != 0 {
		t.Errorf("the program's status is %d", s)
	}
	if n := f.Waiting(); n != 0 {
		t.Errorf("%d processes wait for the file system after a program was started", n)
	}
	forked := make(chan error)
	go func() { forked <- exec.Command("/bin/true").Run() }()
	for f.Waiting() == 0 {
		select {
		case err := <-forked:
			t.Fatalf("a program was started by a fork of the process, and the file system was not asked (%v): this test shows nothing", err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := <-forked; err != nil {
		t.Error(err)
	}
	unix.Close(fd)
}
