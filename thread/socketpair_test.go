package thread_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// changes are what a program does to the ids of all its threads, or to the capabilities of this one.
var changes = map[string]func() error{
	"real uid":         func() error { return syscall.Setresuid(61005, 0, 0) },
	"effective uid":    func() error { return syscall.Setresuid(0, 61005, 0) },
	"saved uid":        func() error { return syscall.Setresuid(0, 0, 61005) },
	"real gid":         func() error { return syscall.Setresgid(61005, 0, 0) },
	"effective gid":    func() error { return syscall.Setresgid(0, 61005, 0) },
	"saved gid":        func() error { return syscall.Setresgid(0, 0, 61005) },
	"one more group":   func() error { return syscall.Setgroups([]int{61006, 61007}) },
	"one fewer groups": func() error { return syscall.Setgroups(nil) },
	"another group":    func() error { return syscall.Setgroups([]int{61007}) },
	"capabilities": func() error {
		sets, e := capability.Get()
		if e == 0 {
			sets.Effective &^= 1 << unix.CAP_CHOWN
			e = sets.Set()
		}
		if e != 0 {
			return e
		}
		return nil
	},
}

func init() {
	for name, change := range changes {
		roles["changes its "+name] = func() {
			if err := changeBeforeMoment(change); err != nil {
				fmt.Println(err)
			}
		}
	}
}

func changeBeforeMoment(change func() error) error {
	client, err := token.FromIDs(61001, 61002, []uint32{61003})
	if err != nil {
		return err
	}
	if err := syscall.Setgroups([]int{61006}); err != nil {
		return err
	}
	var changed string
	_, _, err = thread.SocketpairAfter(func() {
		if err := change(); err != nil {
			fmt.Println("changing:", err)
		}
		changed = ownCredentials()
	}, client)
	if !errors.Is(err, thread.ErrChangedMeanwhile) {
		return fmt.Errorf("SocketpairAs gives %v, want %v", err, thread.ErrChangedMeanwhile)
	}
	if now := ownCredentials(); now != changed {
		return fmt.Errorf("the change is lost: the thread is\n%sand was, when all were changed,\n%s", now, changed)
	}
	near, far, err := thread.SocketpairAs(client)
	if err != nil {
		return fmt.Errorf("SocketpairAs after the change: %v", err)
	}
	defer unix.Close(far)
	defer unix.Close(near)
	peer, err := unix.GetsockoptUcred(near, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || peer.Uid != 61001 || peer.Gid != 61002 {
		return fmt.Errorf("the socket's maker is %v (%v), want 61001 and 61002", peer, err)
	}
	if now := ownCredentials(); now != changed {
		return fmt.Errorf("after SocketpairAs the thread is\n%sinstead of\n%s", now, changed)
	}
	return nil
}

func ownCredentials() string {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return err.Error()
	}
	return credentialLines(status)
}

// TestSocketpairLeavesAChangeOfAllThreadsAlone has a program change the ids of all its threads after SocketpairAs has looked at its own: what it
// put back then would be what the others are not any more.
func TestSocketpairLeavesAChangeOfAllThreadsAlone(t *testing.T) {
	needRoot(t)
	for name := range changes {
		t.Run(name, func(t *testing.T) {
			if out, err := runRole("changes its " + name); err != nil || strings.TrimSpace(out) != "the process went on" {
				t.Errorf("%v, %s", err, out)
			}
		})
	}
}
