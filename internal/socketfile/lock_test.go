package socketfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waits reports whether somebody waits for a lock of the file that fd is of.
func waits(t *testing.T, fd int) bool {
	t.Helper()
	var stat unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	must(t, err, unix.Fstat(fd, &stat))
	for line := range strings.Lines(string(locks)) {
		if strings.Contains(line, "->") && strings.Contains(line, fmt.Sprintf(":%d ", stat.Ino)) {
			return true
		}
	}
	return false
}

// held opens and locks a lock file by hand.
func held(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	must(t, err, unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB))
	return fd
}

// TestLockThatWasRemovedIsNoLock: who waited for a lock whose owner has removed it since holds nothing, and must not go on while somebody
// else has the lock that is there now.
func TestLockThatWasRemovedIsNoLock(t *testing.T) {
	dir := base(t)
	d := open(t, dir)
	path := filepath.Join(dir, "pipe~lock")
	first := held(t, path)
	type result struct {
		unlock func()
		err    error
	}
	locked := make(chan result, 1)
	go func() {
		unlock, err := d.lock("pipe")
		locked <- result{unlock, err}
	}()
	deadline := time.Now().Add(30 * time.Second) // it ends what hangs
	waitFor := func(fd int) {
		t.Helper()
		for !waits(t, fd) {
			if len(locked) > 0 {
				t.Fatal("it has the lock while another has it")
			}
			if time.Now().After(deadline) {
				t.Fatal("it neither has the lock nor waits for it")
			}
		}
	}
	waitFor(first)
	must(t, os.Remove(path))
	second := held(t, path)
	must(t, unix.Close(first))
	waitFor(second)
	must(t, os.Remove(path), unix.Close(second))
	r := <-locked
	must(t, r.err)
	if fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		t.Errorf("it has a lock that is not there: %v", err)
	} else {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			t.Errorf("it does not hold the lock that is there: flock gives %v", err)
		}
		unix.Close(fd)
	}
	r.unlock()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestWhatIsNoLockIsNeitherWaitedForNorTouched(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(t *testing.T, path, other string)
		says string
	}{
		{"a link", func(t *testing.T, path, other string) { must(t, os.Symlink(other, path)) }, "symbolic links"},
		{"a link to nothing", func(t *testing.T, path, other string) { must(t, os.Symlink(other+"-none", path)) }, "symbolic links"},
		{"another file's name", func(t *testing.T, path, other string) { must(t, os.Link(other, path)) }, "2 names"},
		{"a FIFO", func(t *testing.T, path, other string) { must(t, unix.Mkfifo(path, 0o600)) }, "no regular file"},
		{"a directory", func(t *testing.T, path, other string) { must(t, os.Mkdir(path, 0o700)) }, "is a directory"},
		{"another user's", func(t *testing.T, path, other string) {
			needRoot(t, "a file of another user's")
			must(t, os.WriteFile(path, nil, 0o666), os.Chown(path, 61001, -1))
		}, "uid 61001"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := base(t)
			path, other := filepath.Join(dir, "pipe~lock"), filepath.Join(dir, "other")
			must(t, os.WriteFile(other, []byte("precious"), 0o600))
			test.make(t, path, other)
			before, err := os.Lstat(path)
			must(t, err)
			// Whoever has the other file locked holds up nobody.
			fd, err := unix.Open(other, unix.O_RDWR|unix.O_CLOEXEC, 0)
			must(t, err, unix.Flock(fd, unix.LOCK_EX))
			defer unix.Close(fd)
			unlock, err := open(t, dir).lock("pipe")
			if err == nil {
				unlock()
			}
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("locking: %v; want an error that says %q", err, test.says)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
				t.Errorf("what was in the place of the lock was changed: %v, %v", after, err)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 2 {
				t.Errorf("there is %v", entries)
			}
		})
	}
}

// TestListenWaitsForTheLock: two servers that find the same dead socket must not both remove it, the second one the first one's.
func TestListenWaitsForTheLock(t *testing.T) {
	dir := base(t)
	d := open(t, dir)
	path := filepath.Join(dir, "pipe")
	abandon(t, path)
	before, err := os.Lstat(path)
	must(t, err)
	lock := held(t, path+"~lock")
	done := make(chan error, 1)
	go func() {
		fd, made, err := d.Listen("pipe", asked)
		if err == nil {
			made.Remove()
			unix.Close(fd)
		}
		done <- err
	}()
	deadline := time.Now().Add(30 * time.Second) // it ends what hangs
	for !waits(t, lock) {
		if len(done) > 0 || time.Now().After(deadline) {
			t.Fatal("it does not wait for the lock")
		}
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
		t.Errorf("it has removed the socket without the lock: %v", err)
	}
	must(t, os.Remove(path+"~lock"), unix.Close(lock))
	must(t, <-done)
}
