// Package leftover finds what a test binary's tests left behind: threads with foreign credentials, descriptors and children.
package leftover

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
)

// Main runs the tests and returns the exit status: m's own, or 1 if all passed and left something behind.
//
//	func TestMain(m *testing.M) { os.Exit(leftover.Main(m)) }
func Main(m *testing.M) int {
	status := m.Run()
	if err := Check(); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: the tests left something behind:\n%v\n", err)
		if status == 0 {
			status = 1
		}
	}
	return status
}

// start is what the process had when it began.
var start = struct {
	credentials string
	descriptors map[string]string
}{mustCredentials(), ownDescriptors()}

// ownDescriptors returns the descriptors that the process has, those that package discard keeps among them.
func ownDescriptors() map[string]string {
	discard.Prepare()
	return Descriptors()
}

func mustCredentials() string {
	s, err := credentials("/proc/self")
	if err != nil {
		panic(err)
	}
	return s
}

// Check returns an error that tells of everything that is left over. What is on its way out is waited for.
func Check() error {
	discard.Wait()
	Settle()
	return gone(func() error { return errors.Join(Threads(), opened(start.descriptors), checkChildren()) })
}

// Patience is how long what is on its way out is waited for.
var Patience = 30 * time.Second

// gone returns nil once f does, and what it returns last if that takes too long: where no Settle is set, what is kept open for a while goes
// by itself, and what others close goes when they come to it.
func gone(f func() error) error {
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if err := f(); err == nil || time.Since(begun) > Patience {
			return err
		}
	}
}

// Threads returns an error if a thread of this process has other ids, groups or capabilities than the process began with.
func Threads() error {
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err
	}
	var errs []error
	for _, task := range tasks {
		now, err := credentials(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has gone meanwhile
		}
		if err != nil {
			errs = append(errs, err)
		} else if now != start.credentials {
			errs = append(errs, fmt.Errorf("thread %s has foreign credentials:\n%sinstead of\n%s", filepath.Base(task), now, start.credentials))
		}
	}
	return errors.Join(errs...)
}

// credentials returns the lines of a thread's status that tell of its rights.
func credentials(task string) (string, error) {
	b, err := os.ReadFile(task + "/status")
	if err != nil {
		return "", err
	}
	var lines strings.Builder
	for line := range strings.Lines(string(b)) {
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb":
			lines.WriteString(line)
		}
	}
	return lines.String(), nil
}

// Descriptors returns the process's open descriptors and what they are of, without those that the runtime polls with.
func Descriptors() map[string]string {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		panic(err)
	}
	open := make(map[string]string)
	for _, name := range names {
		to, err := os.Readlink("/proc/self/fd/" + name)
		if err != nil || name == fmt.Sprint(dir.Fd()) {
			continue
		}
		switch to {
		case "anon_inode:[eventpoll]", "anon_inode:[eventfd]":
			continue
		}
		open[name] = to
	}
	return open
}

// Settle, if a package's tests set it, closes what the package keeps open for a while.
var Settle = func() {}

// ByThis fails the test if f leaves descriptors open, or threads with foreign credentials.
func ByThis(t *testing.T, f func()) {
	t.Helper()
	Settle()
	before := Descriptors()
	f()
	discard.Wait()
	Settle()
	if err := gone(func() error { return errors.Join(opened(before), Threads()) }); err != nil {
		t.Error(err)
	}
}

// opened returns an error that names the descriptors that were not there before.
func opened(before map[string]string) error {
	var errs []error
	for fd, to := range Descriptors() {
		if was, ok := before[fd]; !ok || was != to {
			errs = append(errs, fmt.Errorf("descriptor %s is left open: %s", fd, to))
		}
	}
	return errors.Join(errs...)
}

func checkChildren() error {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	switch err {
	case unix.ECHILD:
		return nil
	case nil:
		children, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
		return fmt.Errorf("child processes are left (of the main thread: %s)", strings.TrimSpace(string(children)))
	}
	return fmt.Errorf("asking for children: %w", err)
}
