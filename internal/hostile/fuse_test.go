package hostile

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCloseOfAFileOnAFUSEWaits(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a file system")
	}
	dir := t.TempDir()
	f, err := MountFUSE(dir, Flush)
	if err != nil {
		t.Skip(err)
	}
	fd, err := unix.Open(filepath.Join(dir, "file"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		f.Close()
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		unix.Close(fd)
	}()
	for f.Stuck(Flush) == 0 {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-closed:
		t.Error("closing it returned before the file system answered")
	default:
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	<-closed
}

func TestCloseOfASocketThatLingersWaits(t *testing.T) {
	fd, release, err := Lingering()
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		unix.Close(fd)
	}()
	select {
	case <-closed:
		t.Error("closing it returned before the other end let it go")
	case <-time.After(50 * time.Millisecond): // which shows nothing on a busy machine, and fails nothing
	}
	release()
	<-closed
}
