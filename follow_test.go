package guise_test

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// writeAs has a client's end write one byte in a scope of t.
func writeAs(t *testing.T, c *guise.Conn, as *token.Token, b byte) {
	t.Helper()
	err := guise.RunAs(as, func(*guise.Scope) error {
		_, err := c.Write([]byte{b})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// writeChanged has a client's end write one byte on a thread whose own ids are those of t: in no scope, as the process itself.
func writeChanged(t *testing.T, c *guise.Conn, to *token.Token, b byte) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		const unchanged = ^uintptr(0)
		_, _, e := syscall.RawSyscall(unix.SYS_SETRESGID, unchanged, uintptr(to.GID()), unchanged)
		if e == 0 {
			_, _, e = syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(to.UID()), unchanged)
		}
		if e != 0 {
			done <- e
			return
		}
		_, err := c.Write([]byte{b})
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// actsAs enters a scope of the client and compares what the kernel shows with want.
func actsAs(t *testing.T, when string, server *guise.Conn, want *token.Token) {
	t.Helper()
	err := server.RunAsClient(func(*guise.Scope) error {
		self, err := token.Self()
		if err == nil && (self.UID() != want.UID() || self.GID() != want.GID()) {
			t.Errorf("%s the server acts as %s, want %s", when, self, want)
		}
		return err
	})
	if err != nil {
		t.Errorf("%s: %v", when, err)
	}
}

func TestChangeAfterTheReadIsInForceAtTheNextEntry(t *testing.T) {
	needRoot(t)
	server0, alice, bob, carol := identity(t, 0, 0), identity(t, 61001, 61001), identity(t, 61002, 61002), identity(t, 61003, 61003)
	near, server := pair(t, listenOn(t, nil), nil, &guise.QoS{Tracking: guise.Dynamic})
	actsAs(t, "at first", server, server0)
	writeChanged(t, near, alice, 'a')
	actsAs(t, "after the client changed, and before what it wrote was read,", server, alice)
	// Somebody else whom the client acts for is no change of the client's.
	writeAs(t, near, bob, 'b')
	actsAs(t, "after the client wrote for another, and before that was read,", server, alice)
	writeChanged(t, near, carol, 'c')
	actsAs(t, "after the client changed once more", server, carol)
	for i, want := range []*token.Token{alice, bob, carol} {
		if n, err := server.Read(make([]byte, 9)); err != nil || n != 1 {
			t.Fatalf("read %d bytes, %v; want 1", n, err)
		}
		actsAs(t, fmt.Sprintf("after read %d", i+1), server, want)
	}
}

// TestWhatWasReadIsActedOnAsItsWriter has a client write under many contexts before the server reads anything: more than the
// server takes off the control channel at a time.
func TestWhatWasReadIsActedOnAsItsWriter(t *testing.T) {
	needRoot(t)
	const writes = 60
	for _, message := range []bool{false, true} {
		l := listenOn(t, &guise.ListenConfig{Message: message})
		near, err := guise.Dial(l.Addr().String(), &guise.QoS{Tracking: guise.Dynamic})
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		var writers []*token.Token
		for i := range byte(writes) {
			writers = append(writers, identity(t, 61000+uint32(i), 61000))
			writeAs(t, near, writers[i], i)
		}
		server := acceptUnread(t, l)
		for buf, i := make([]byte, 8), 0; i < writes; i++ {
			n, err := server.Read(buf)
			if err != nil || n != 1 || buf[0] != byte(i) {
				t.Fatalf("read %v, %v; want the one byte %d", buf[:n], err, i)
			}
			actsAs(t, "pipelined:", server, writers[i])
			actsAs(t, "pipelined, entered again:", server, writers[i])
		}
	}
}

func TestFreezeKeepsTheContextAndTellsTheClient(t *testing.T) {
	needRoot(t)
	bob, carol := identity(t, 61002, 61002), identity(t, 61003, 61003)
	near, server := pair(t, listenOn(t, nil), nil, &guise.QoS{Tracking: guise.Dynamic})
	writeChanged(t, near, bob, 'b')
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	for range 1000 { // more than would fit on a control channel that nobody reads
		writeAs(t, near, carol, 'c')
		writeAs(t, near, bob, 'b')
		if _, err := io.ReadFull(server, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
	}
	actsAs(t, "after Freeze", server, bob)
	for _, c := range []*guise.Conn{near, server} {
		if got := c.QoS().Tracking; got != guise.Static {
			t.Errorf("tracking is %v after Freeze, want static", got)
		}
	}
	if err := near.Freeze(); err == nil {
		t.Error("a client's end can be frozen, though it has no client")
	}
}

func TestListenerNeedsALevel(t *testing.T) {
	l := listenOn(t, &guise.ListenConfig{Level: guise.Impersonation})
	for stated, want := range map[guise.Level]error{guise.Identification: guise.ErrLevel, guise.LevelUnstated: nil, guise.Delegation: nil} {
		near, err := guise.Dial(l.Addr().String(), &guise.QoS{Level: stated})
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		server := acceptUnread(t, l)
		err = server.WaitClient(t.Context())
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("a client that states %v is met with %v, want %v", stated, err, want)
		}
		if want == nil {
			continue
		}
		if _, err := near.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("a client that states %v reads %v, and is not told that the level is too low", stated, err)
		}
	}
}
