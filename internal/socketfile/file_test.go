package socketfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/without"
)

// TestNameThatIsSwappedChangesNoOtherFile: even root, who may put what it likes in the directory while a socket is made, has no other
// file's mode, owner or name changed.
func TestNameThatIsSwappedChangesNoOtherFile(t *testing.T) {
	const starts = 300
	options := asked
	if os.Geteuid() == 0 {
		options.GID = 61003
	}
	for _, decoy := range []struct {
		name string
		kind uint32
		make func(file, path string) error
	}{
		{"for a link", unix.S_IFREG, os.Symlink},
		{"for a link to a socket", unix.S_IFSOCK, os.Symlink},
		{"for another name", unix.S_IFREG, os.Link},
	} {
		t.Run(decoy.name, func(t *testing.T) {
			dir := base(t)
			d := open(t, dir)
			file, pipe, other := filepath.Join(dir, "file"), filepath.Join(dir, "pipe"), filepath.Join(dir, "other")
			must(t, unix.Mknod(file, decoy.kind|0o600, 0))
			before, err := os.Lstat(file)
			must(t, err)
			var stop atomic.Bool
			var racer sync.WaitGroup
			racer.Go(func() {
				for !stop.Load() {
					_ = unix.Renameat2(unix.AT_FDCWD, pipe, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE) // if both are there
				}
			})
			swapped := 0
			for start := range starts {
				for _, path := range []string{pipe, other} {
					if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Fatal(err)
					}
				}
				must(t, decoy.make(file, other))
				fd, made, err := d.Listen("pipe", options)
				if err == nil {
					unix.Close(fd)
					made.Remove()
				} else {
					swapped++
				}
				now, err := os.Lstat(file)
				must(t, err)
				if now.Mode() != before.Mode() || now.Sys().(*syscall.Stat_t).Gid != before.Sys().(*syscall.Stat_t).Gid {
					t.Errorf("start %d: the other file has mode %v and gid %d now", start+1, now.Mode(), now.Sys().(*syscall.Stat_t).Gid)
					break
				}
			}
			stop.Store(true)
			racer.Wait()
			t.Logf("%d of %d starts saw that the name was swapped", swapped, starts)
		})
	}
}

func TestSocketThatIsNoLongerTheOneIsNotRemoved(t *testing.T) {
	dir := base(t)
	d := open(t, dir)
	fd, made, err := d.Listen("pipe", asked)
	must(t, err)
	defer unix.Close(fd)
	path := filepath.Join(dir, "pipe")
	must(t, os.Remove(path), os.WriteFile(path, nil, 0o600))
	made.Remove()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("what came in its place was removed: %v", err)
	}
}

// TestModeIsSetOnOlderKernels: before Linux 6.6, or under a filter of system calls, there is no fchmodat2(2).
func TestModeIsSetOnOlderKernels(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
		t.Run(errno.Error(), func(t *testing.T) {
			dir := base(t)
			d := open(t, dir)
			onAThread(func() {
				if err := without.Call(unix.SYS_FCHMODAT2, errno); err != nil {
					t.Error(err)
					return
				}
				options := asked
				options.Mode = 0o622
				fd, made, err := d.Listen("pipe", options)
				if err != nil {
					t.Error(err)
					return
				}
				defer unix.Close(fd)
				defer made.Remove()
				if info, err := os.Lstat(filepath.Join(dir, "pipe")); err != nil || info.Mode() != fs.ModeSocket|0o622 {
					t.Errorf("the socket has mode %v, %v", info.Mode(), err)
				}
			})
		})
	}
}

// TestWithoutProc: on this kernel no proc file system is needed, but for a directory whose real path is too long; an older one needs
// it for the mode, and nothing is left if it can't be set.
func TestWithoutProc(t *testing.T) {
	if err := without.Namespaces(unix.CLONE_NEWNS); err != nil {
		t.Skip("no namespaces here:", err)
	}
	short := base(t)
	long := filepath.Join(short, strings.Repeat("d", longest))
	must(t, os.Mkdir(long, 0o755))
	for _, test := range []struct{ dir, kernel, want string }{
		{short, "new", "listens"},
		{short, "old", "chmod " + short + "/pipe: it takes Linux 6.6 (fchmodat2), or a proc file system at /proc, and there is neither"},
		{long, "new", "takes a proc file system at /proc"},
	} {
		t.Run(test.kernel+" "+filepath.Base(test.dir)[:1], func(t *testing.T) {
			if said := play(t, "without proc", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}, test.dir, test.kernel); !strings.Contains(said, test.want) {
				t.Errorf("it says %q, want %q", said, test.want)
			}
			if left, err := os.ReadDir(test.dir); err != nil || len(left) != 0 && test.dir != short || len(left) > 1 {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

// withoutProc is a process with something else at /proc, whose descriptors are links to a file there, that listens in dir.
func withoutProc(dir, kernel string) {
	onAThread(func() {
		const file = "/proc/file"
		err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("none", "/proc", "tmpfs", 0, ""),
			os.WriteFile(file, nil, 0o600), os.MkdirAll("/proc/self/fd", 0o755))
		for fd := range 100 {
			err = errors.Join(err, os.Symlink(file, fmt.Sprintf("/proc/self/fd/%d", fd)))
		}
		if kernel == "old" {
			err = errors.Join(err, without.Call(unix.SYS_FCHMODAT2, unix.ENOSYS))
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		d, err := Open(dir)
		if err != nil {
			fmt.Println(err)
			return
		}
		_, made, err := d.Listen("pipe", asked)
		if info, statErr := os.Stat(file); statErr != nil || info.Mode() != 0o600 {
			fmt.Println("a link's file has mode", info.Mode(), statErr)
			return
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		made.Remove()
		fmt.Println("listens")
	})
}

func TestDirectoryWhoseRealPathIsTooLongCanBeReachedByALink(t *testing.T) {
	dir := base(t)
	deep := filepath.Join(dir, strings.Repeat("d", longest))
	must(t, os.Mkdir(deep, 0o755), os.Symlink(deep, filepath.Join(dir, "link")))
	d := open(t, filepath.Join(dir, "link"))
	path := filepath.Join(dir, "link", "pipe")
	abandon(t, path)
	fd, made, err := d.Listen("pipe", asked)
	must(t, err)
	if life, err := LifeOf(path); life != Live || err != nil {
		t.Errorf("clients find it %d, %v by the short path", life, err)
	}
	if _, _, err := d.Listen("pipe", asked); !errors.Is(err, ErrTaken) {
		t.Errorf("a second server has %v, want ErrTaken", err)
	}
	made.Remove()
	unix.Close(fd)
	if left, err := os.ReadDir(deep); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// TestAddressIsAPathThatClientsCanUse: it is shown to them by getpeername(2), and by ss(8) to everybody.
func TestAddressIsAPathThatClientsCanUse(t *testing.T) {
	dir := base(t)
	must(t, os.Mkdir(filepath.Join(dir, "real"), 0o755), os.Symlink("real", filepath.Join(dir, "link")))
	d := open(t, filepath.Join(dir, "link"))
	fd, made, err := d.Listen("pipe", asked)
	must(t, err)
	defer unix.Close(fd)
	defer made.Remove()
	address, err := unix.Getsockname(fd)
	must(t, err)
	if name := address.(*unix.SockaddrUnix).Name; name != filepath.Join(dir, "real", "pipe") {
		t.Errorf("the socket's address is %q", name)
	}
}

// TestNothingIsLeftOfASocketThatCantBeHad: neither a file nor a descriptor.
func TestNothingIsLeftOfASocketThatCantBeHad(t *testing.T) {
	for name, call := range map[string]uintptr{
		"socket": unix.SYS_SOCKET, "bind": unix.SYS_BIND, "listen": unix.SYS_LISTEN, "flock": unix.SYS_FLOCK, "fchownat": unix.SYS_FCHOWNAT,
		"fchmodat2": unix.SYS_FCHMODAT2, "openat": unix.SYS_OPENAT, "fstat": unix.SYS_FSTAT, "newfstatat": unix.SYS_NEWFSTATAT,
	} {
		t.Run(name, func(t *testing.T) {
			dir := base(t)
			d := open(t, dir)
			leftover.ByThis(t, func() {
				onAThread(func() {
					if err := without.Call(call, unix.ENOMEM); err != nil {
						t.Error(err)
						return
					}
					options := asked
					options.GID = os.Getegid()
					if fd, made, err := d.Listen("pipe", options); !errors.Is(err, unix.ENOMEM) {
						t.Errorf("Listen = %d, %v, %v, want ENOMEM", fd, made, err)
					}
				})
			})
			left, err := os.ReadDir(dir)
			must(t, err)
			for _, e := range left {
				// A lock that can't be had, or looked at, may be another's.
				if e.Name() != "pipe~lock" || call != unix.SYS_FLOCK && call != unix.SYS_FSTAT && call != unix.SYS_NEWFSTATAT {
					t.Errorf("%v is left", e)
				}
			}
		})
	}
}
