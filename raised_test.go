package guise

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/secondstage"
	"github.com/guise-project/guise/token"
)

// TestClientThatResetsTheConnectionKeepsItsLevel has a client state a low level and close without reading what the server wrote:
// the kernel says that there was an error before it hands out the preface.
func TestClientThatResetsTheConnectionKeepsItsLevel(t *testing.T) {
	bothModes(t, func(t *testing.T, config ListenConfig) {
		l := listenAt(t, &config)
		client := dialRaw(t, l)
		c := acceptFrom(t, l)
		defer c.Close()
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		client.say(rawHello(byte(token.Identification), rawStatic))
		client.preface("G", client.far)
		client.close()
		called := false
		err := c.RunAsClient(func(*Scope) error { called = true; return nil })
		if called || !errors.Is(err, ErrLevel) {
			t.Errorf("RunAsClient for a client at level identification: %v (function called: %v), want %v", err, called, ErrLevel)
		}
	})
}

func TestListenerWithCredentialsTurnedOnServesPlainClients(t *testing.T) {
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET} {
		path := filepath.Join(t.TempDir(), "pipe")
		fd := rawSocket(unix.AF_UNIX, kind)
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
		must(unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
		must(unix.Listen(fd, 1))
		early := rawConnect(path) // before the listener is adopted
		l, err := ListenFile(f, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		late := rawConnect(path)
		for i, client := range []int{early, late} {
			must1(unix.Write(client, []byte("hello")))
			c := acceptFrom(t, l)
			if err := c.WaitClient(context.Background()); err != nil {
				t.Errorf("plain client %d of a listener with SO_PASSCRED: %v", i+1, err)
			}
			c.Close()
			unix.Close(client)
		}
	}
}

// TestMessageThatIsTooLongKeepsItsPlace has a client send a message that the server can't take, change, and send another.
func TestMessageThatIsTooLongKeepsItsPlace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("acting as others takes root")
	}
	l := listenAt(t, &ListenConfig{Message: true})
	near, err := Dial(l.Addr().String(), &QoS{Tracking: Dynamic})
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	control(near, func(fd int) { err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4*MaxMessage) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := near.Write(make([]byte, MaxMessage+64<<10)); err != nil {
		t.Fatal(err)
	}
	bob, err := token.FromIDs(61002, 61002, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := RunAs(bob, func(*Scope) error { _, err := near.Write([]byte("b")); return err }); err != nil {
		t.Fatal(err)
	}
	c := acceptFrom(t, l)
	defer c.Close()
	buf := make([]byte, 16)
	if n, err := c.Read(buf); err == nil || err == io.EOF || !strings.Contains(err.Error(), "too long") {
		t.Errorf("reading the long message gives %d bytes, %v, want an error that says it is too long", n, err)
	}
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "b" {
		t.Fatalf("read %q, %v, want the next message", buf[:n], err)
	}
	if who, err := c.Client(); err != nil || who.UID() != 61002 {
		t.Errorf("the message after it is read as if by %v, %v, want uid 61002", who, err)
	}
}

// TestEndedScopeDoesNotComeBack has the connection's next scope not be taken for the one before.
func TestEndedScopeDoesNotComeBack(t *testing.T) {
	l, hop := listenAt(t, nil), listenAt(t, nil)
	client := dialRaw(t, l)
	client.write("x")
	server := acceptFrom(t, l)
	defer server.Close()
	if err := server.WaitClient(context.Background()); err != nil {
		t.Fatal(err)
	}
	var opened *Conn
	var first *Scope
	err := server.RunAsClient(func(s *Scope) (err error) {
		first = s
		opened, err = Dial(hop.Addr().String(), &QoS{Tracking: Dynamic})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	err = server.RunAsClient(func(s *Scope) error {
		if s == first {
			return errors.New("the scope that a connection was opened in is used again")
		}
		outside := make(chan error)
		go func() { _, err := opened.Write([]byte("y")); outside <- err }()
		return <-outside
	})
	if err != nil {
		t.Errorf("a write on a connection whose scope has ended, while the same client has another: %v", err)
	}
}

// TestSetUserIDProgramIsNoWayToBecomeRoot calls the second stage of a set-user-ID program by hand.
func TestSetUserIDProgramIsNoWayToBecomeRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a set-user-ID program takes root")
	}
	dir, err := os.MkdirTemp("", "guise-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	must(os.Chmod(dir, 0o755))
	program := filepath.Join(dir, "program")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	must(os.WriteFile(program, b, 0o755))
	for _, mode := range []os.FileMode{0o755, 0o755 | os.ModeSetuid, 0o755 | os.ModeSetgid} {
		t.Run(mode.String(), func(t *testing.T) {
			must(os.Chmod(program, mode))
			order := secondstage.Order{UID: 0, GID: 0, Capabilities: token.AllCapabilities, Name: "/bin/sh", Args: []string{"sh", "-c", "id -u; id -g"}}
			cmd := &exec.Cmd{Path: program, Args: order.Arguments()}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61001, Gid: 61001, Groups: []uint32{}}}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != secondstage.StatusFailed {
				t.Errorf("uid 61001 had it run a program as root: %v, %s", err, out)
			}
			if mode != 0o755 && !strings.Contains(string(out), "set-user-ID") {
				t.Errorf("it does not say why it refuses: %s", out)
			}
		})
	}
}
