package token

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRootIsNotLookedAtInAnotherProcess has the peer of a socket end, and its number be that of a process which is alive: what is seen of
// that one says nothing of the peer. Numbers come back soon on a busy machine; here this process stands for the one that got it.
func TestRootIsNotLookedAtInAnotherProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: its namespaces and capabilities are looked at")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "descriptor 3")
	defer unix.Close(pair[0])
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", pairMaker+"=1")
	cmd.ExtraFiles = []*os.File{theirs}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	ended := false
	end := func() {
		if !ended {
			ended = true
			stdin.Close()
			cmd.Wait()
		}
	}
	defer end()
	control := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		t.Fatalf("the other process sent %d control messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	look := func() rootLook { return lookAtRoot(fds[0], os.Getpid()) }

	if seen := look(); seen.obstacle != nil || seen.capabilities == (Capabilities{}) {
		t.Fatalf("while the peer lives, %v is seen, and %+v in the way", seen.capabilities, seen.obstacle)
	}
	unseen := func(when string) {
		t.Helper()
		seen := look()
		if seen.capabilities != (Capabilities{}) || seen.obstacle == nil || !seen.obstacle.foreignRoot {
			t.Errorf("%s the capabilities %v are seen, and %+v is in the way: they are another process's", when, seen.capabilities.Effective, seen.obstacle)
			return
		}
		if when == "before it was waited for" && (!seen.obstacle.gone || !strings.Contains(seen.obstacle.reason, errGone.Error())) {
			t.Errorf("%s the obstacle is %+v, want one that says that it has gone", when, seen.obstacle)
		}
	}
	stdin.Close()
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	unseen("before it was waited for")
	end()
	unseen("after that")
}

// pairMaker is set in the environment of the test binary when it is to send one end of a socketpair of its own over descriptor 3, and to
// live until its input ends.
const pairMaker = "GUISE_TEST_PAIR_MAKER"

func init() {
	if os.Getenv(pairMaker) == "" {
		return
	}
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Sendmsg(3, []byte{'p'}, unix.UnixRights(p[1]), nil, 0)
	}
	if err != nil {
		panic(err)
	}
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}
