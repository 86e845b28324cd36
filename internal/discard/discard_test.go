package discard_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/hostile"
	"github.com/guise-project/guise/internal/leftover"
)

func TestMain(m *testing.M) { os.Exit(leftover.Main(m)) }

const (
	mallory = 61001
	other   = 61002
)

func pair(t *testing.T, kind int) (near, far int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

func send(t *testing.T, fd int, data string, fds ...int) {
	t.Helper()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(fd, []byte(data), rights, nil, unix.MSG_NOSIGNAL); err != nil {
		t.Fatal(err)
	}
}

// lingering returns a socket whose close blocks until release is called.
func lingering(t *testing.T) (fd int, release func()) {
	t.Helper()
	fd, release, err := hostile.Lingering()
	if err != nil {
		t.Fatal(err)
	}
	return fd, release
}

// returns fails the test if f does not return.
func returns(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not return", what)
	}
}

func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

func TestSocketWithNothingInItIsClosedAtOnce(t *testing.T) {
	for _, test := range []struct {
		name string
		kind int
		send []string
	}{
		{"empty", unix.SOCK_SEQPACKET, nil},
		{"empty stream", unix.SOCK_STREAM, nil},
		{"data", unix.SOCK_STREAM, []string{"some"}},
		{"messages", unix.SOCK_SEQPACKET, []string{"one", "", "two"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := pair(t, test.kind)
			defer unix.Close(near)
			for _, data := range test.send {
				send(t, near, data)
			}
			discard.Socket(far, mallory)
			if isOpen(far) {
				t.Error("it is open still")
			}
			if n := discard.Batches(); n != 0 {
				t.Errorf("%d sockets wait for a process", n)
			}
		})
	}
}

func TestSocketWithWhatLingersInItDoesNotBlock(t *testing.T) {
	for _, option := range append(hostile.Options(), hostile.Option{Name: "nothing", Set: func(int) error { return nil }}) {
		t.Run(option.Name, func(t *testing.T) {
			leftover.ByThis(t, func() {
				near, far := pair(t, unix.SOCK_SEQPACKET)
				fd, release := lingering(t)
				defer release()
				for range 3 {
					send(t, near, "")
				}
				send(t, near, "", slices.Repeat([]int{fd}, 253)...)
				unix.Close(fd)
				if err := option.Set(far); err != nil {
					t.Fatal(err)
				}
				unix.Close(near)
				returns(t, "Socket", func() { discard.Socket(far, mallory) })
				if isOpen(far) {
					t.Error("it is open still")
				}
				returns(t, "closing what lingers", discard.Wait)
			})
		})
	}
}

func TestSocketThatOthersReadMeanwhileDoesNotBlock(t *testing.T) {
	leftover.ByThis(t, func() {
		for range 50 {
			near, far := pair(t, unix.SOCK_SEQPACKET)
			fd, release := lingering(t)
			defer release()
			for range 20 {
				send(t, near, "x", fd)
			}
			copied, err := unix.FcntlInt(uintptr(far), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			stolen := make(chan struct{})
			go func() {
				defer close(stolen)
				for range 10 { // what has no room would be closed here, not by whom this is about
					_, _ = unix.Read(copied, nil)
				}
				unix.Close(copied)
			}()
			unix.Close(near)
			returns(t, "Socket", func() { discard.Socket(far, mallory) })
			_ = unix.Shutdown(fd, unix.SHUT_RDWR)
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
			unix.Close(fd)
			<-stolen
		}
		returns(t, "closing it all", discard.Wait)
	})
}

func TestMoreThanOneProcessTakes(t *testing.T) {
	leftover.ByThis(t, func() {
		fd, release := lingering(t)
		for range 1500 {
			near, far := pair(t, unix.SOCK_SEQPACKET)
			send(t, near, "x", fd)
			unix.Close(near)
			returns(t, "Socket", func() { discard.Socket(far, mallory) })
		}
		returns(t, "Wait", discard.Wait) // and nothing in it is the last
		release()
		unix.Close(fd)
	})
}

func TestFilesThatCantBeClosedAreTheirSendersAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a file system")
	}
	leftover.ByThis(t, func() {
		dir := t.TempDir()
		files, err := hostile.MountFUSE(dir, hostile.Flush)
		if err != nil {
			t.Skip(err)
		}
		var fds []int
		for range discard.MostHeld + 1 {
			fd, err := unix.Open(filepath.Join(dir, "file"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			fds = append(fds, fd)
		}
		returns(t, "Descriptors", func() { discard.Descriptors(fds, mallory) })
		if err := discard.Check(mallory); !errors.Is(err, discard.ErrHeld) {
			t.Errorf("a user of whose files %d wait: %v, want ErrHeld", len(fds), err)
		}
		if err := discard.Check(other); err != nil {
			t.Errorf("another user: %v", err)
		}
		null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		discard.Descriptor(null, other)
		returns(t, "closing another user's", func() {
			for isOpen(null) {
				time.Sleep(time.Millisecond)
			}
		})
		if err := files.Close(); err != nil {
			t.Error(err)
		}
		returns(t, "Wait", discard.Wait)
		if err := discard.Check(mallory); err != nil {
			t.Errorf("the user, once all is closed: %v", err)
		}
	})
}
