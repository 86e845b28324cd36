package guisegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisegrpc"
	"github.com/guise-project/guise/internal/callers"
	"github.com/guise-project/guise/internal/testdir"
)

// changing is the variable with which the test binary is a client that changes, of the pipe that it names.
const changing = "GUISE_TEST_CHANGING"

// changeWhenTold is a client with dynamic tracking, who becomes 61001 once the server has written something, and ends when the server does.
func changeWhenTold(pipe string) {
	c, err := guise.Dial(pipe, &guise.QoS{Tracking: guise.Dynamic})
	if err == nil {
		_, err = c.Write([]byte("x"))
	}
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if err == nil {
		err = syscall.Setresuid(61001, 61001, 61001) // of every thread
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	c.Read(make([]byte, 1))
}

// changingClient starts such a client and returns the server's end of its connection.
func changingClient(t *testing.T) *guise.Conn {
	t.Helper()
	l, err := guise.Listen(filepath.Join(testdir.Open(t, 0o755), "changing"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := exec.Command("/proc/self/exe")
	client.Env = append(os.Environ(), changing+"="+l.Addr().String(), "GORACE=atexit_sleep_ms=0")
	client.Stderr = os.Stderr
	client.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// Pdeathsig is of the thread that starts the process: the runtime must not end it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(20*time.Second, func() { l.Close() })
	defer late.Stop()
	c, err := l.AcceptPipe()
	if err != nil {
		client.Process.Kill()
		client.Wait()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := client.Wait(); err != nil {
			t.Error(err)
		}
	})
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return c
}

// change has the client change, and waits until the scope has followed.
func change(ctx context.Context, c *guise.Conn, s *guise.Scope) error {
	changed := s.Changed()
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func needFollowing(t *testing.T) {
	callers.NeedDynamic(t)
	if err := guise.CanFollow(0); err != nil {
		t.Skip(err)
	}
}

func TestCallsOfAScopeThatHasFollowedAreRefused(t *testing.T) {
	needFollowing(t)
	s := serve(t, nil, creator)
	c := changingClient(t)
	err := c.RunAsClient(func(scope *guise.Scope) error {
		client, err := guisegrpc.Dial(soon(t), s.pipe, nil)
		if err != nil {
			return err
		}
		defer client.Close()
		if got, err := call(soon(t), client, s.file("before")); got != "0" || err != nil {
			t.Errorf("a call of the client as it was is one of %q, %v", got, err)
		}
		if err := change(soon(t), c, scope); err != nil {
			return err
		}
		if got, err := call(soon(t), client, s.file("after")); !errors.Is(err, guisegrpc.ErrInScope) {
			t.Errorf("a call of the client as it has become is one of %q, %v", got, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// meddling is a Dialer during which something happens.
type meddling struct{ happens func() error }

func (m meddling) Dial(ctx context.Context, name string) (*guise.Conn, error) {
	c, err := guise.Dial(name, &guise.QoS{Tracking: guise.Static})
	if err == nil {
		err = m.happens()
	}
	return c, err
}

func TestDialRefusesAScopeThatFollowsMeanwhile(t *testing.T) {
	needFollowing(t)
	s := serve(t, nil, creator)
	c := changingClient(t)
	err := c.RunAsClient(func(scope *guise.Scope) error {
		client, err := guisegrpc.Dial(soon(t), s.pipe, meddling{func() error { return change(soon(t), c, scope) }})
		if err == nil {
			client.Close()
		}
		if !errors.Is(err, guisegrpc.ErrInScope) {
			t.Errorf("Dial returns %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
