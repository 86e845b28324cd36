package guise_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/features"
	"github.com/guise-project/guise/token"
)

// python is the interpreter of the system, which other users may run too.
const python = "/usr/bin/python3"

// pythonClient is docs/client.py in a directory of the test's own, with room for a pipe and for what servers make.
type pythonClient struct {
	t   *testing.T
	dir string
}

func newPythonClient(t *testing.T) *pythonClient {
	t.Helper()
	if _, err := os.Stat(python); err != nil {
		t.Skip("needs Python 3: ", err)
	}
	dir, err := os.MkdirTemp("", "guise-docs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := os.ReadFile("docs/client.py")
	if err != nil {
		t.Fatal(err)
	}
	// Clients of other ids have to get at the program and the pipe, whatever the umask.
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "client.py"), program, 0o644),
		os.Mkdir(filepath.Join(dir, "made"), 0o777),
		os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "client.py"), 0o644), os.Chmod(filepath.Join(dir, "made"), 0o777),
	)
	if err != nil {
		t.Fatal(err)
	}
	return &pythonClient{t, dir}
}

func (p *pythonClient) path() string { return filepath.Join(p.dir, "pipe") }

func (p *pythonClient) listen(config *guise.ListenConfig) *guise.Listener {
	p.t.Helper()
	l, err := guise.Listen(p.path(), config)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	return l
}

// start starts Python with the given arguments; end waits for it and returns its standard output.
func (p *pythonClient) start(as *syscall.Credential, stdin string, args ...string) (end func() (string, error)) {
	p.t.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.Command(python, append([]string{"-B"}, args...)...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = p.dir, strings.NewReader(stdin), &out, &errOut
	if as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := false
	p.t.Cleanup(func() {
		if !ended {
			cmd.Process.Kill()
			cmd.Wait()
			p.t.Logf("the client said: %s", errOut.String())
		}
	})
	return func() (string, error) {
		ended = true
		if err := cmd.Wait(); err != nil {
			return out.String(), fmt.Errorf("%w: %s", err, errOut.String())
		}
		return out.String(), nil
	}
}

// accept returns the next client of l, all of whose operations end.
func (p *pythonClient) accept(l *guise.Listener) *guise.Conn {
	p.t.Helper()
	late := time.AfterFunc(20*time.Second, func() { l.Close() })
	defer late.Stop()
	c, err := l.AcceptPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	return c
}

func TestPythonClientStatesItsQualityOfService(t *testing.T) {
	for _, message := range []bool{false, true} {
		t.Run(fmt.Sprintf("message=%v", message), func(t *testing.T) {
			p := newPythonClient(t)
			l := p.listen(&guise.ListenConfig{Message: message})

			uid, as := os.Geteuid(), (*syscall.Credential)(nil)
			if uid == 0 {
				uid, as = 61001, &syscall.Credential{Uid: 61001, Gid: 61011}
			}
			end := p.start(as, "who am I?\n", "client.py", "--level", "identification", "--effective-only", p.path())
			c := p.accept(l)

			buf := make([]byte, 100)
			n, err := c.Read(buf)
			if got := string(buf[:n]); err != nil || got != "who am I?\n" {
				t.Fatalf("the server reads %q, %v", got, err)
			}
			want := guise.QoS{Level: guise.Identification, Tracking: guise.Static, EffectiveOnly: true}
			if got := c.QoS(); got != want {
				t.Errorf("in force is %+v, want %+v", got, want)
			}
			client, err := c.Client()
			if err != nil || int(client.UID()) != uid {
				t.Errorf("the client is %v, %v, want uid %d", client, err, uid)
			}
			err = c.RunAsClient(func(*guise.Scope) error {
				t.Error("the server acts as a client that only allows identification")
				return nil
			})
			if !errors.Is(err, guise.ErrLevel) {
				t.Errorf("RunAsClient: %v, want ErrLevel", err)
			}
			if _, err := c.Write([]byte("you are you\n")); err != nil {
				t.Error(err)
			}
			c.Close()
			if out, err := end(); err != nil || out != "you are you\n" {
				t.Errorf("the client prints %q, %v", out, err)
			}
		})
	}
}

// becoming is a client that has two users to choose from, and writes as the one, the other, and the one again.
const becoming = `
import os, sys
os.setgroups([61021])
os.setresgid(61011, 61011, 61012)
os.setresuid(61001, 61001, 61002)
import client
with client.Pipe(sys.argv[1], tracking=int(sys.argv[2])) as pipe:
    for uid, gid in (61001, 61011), (61002, 61012), (61001, 61011):
        os.setegid(gid)
        os.seteuid(uid)
        pipe.write(b"make a file\n")
        print(pipe.read().decode(), end="")
`

func TestPythonClientAnnouncesWhoItBecomes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the client is a user that can become another")
	}
	if err := features.DynamicTracking(); err != nil {
		t.Skip(err)
	}
	one, other := [2]uint32{61001, 61011}, [2]uint32{61002, 61012}
	follows, stays := [3][2]uint32{one, other, one}, [3][2]uint32{one, one, one}
	tests := []struct {
		name     string
		listener guise.Tracking
		client   guise.Tracking
		owners   [3][2]uint32
	}{
		{"dynamic", guise.TrackingUnstated, guise.Dynamic, follows},
		{"dynamic where the listener says static", guise.Static, guise.Dynamic, follows},
		{"unstated where the listener says dynamic", guise.Dynamic, guise.TrackingUnstated, follows},
		{"unstated", guise.TrackingUnstated, guise.TrackingUnstated, stays},
		{"static where the listener says dynamic", guise.Dynamic, guise.Static, stays},
	}
	for _, test := range tests {
		for _, message := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/message=%v", test.name, message), func(t *testing.T) {
				p := newPythonClient(t)
				l := p.listen(&guise.ListenConfig{Tracking: test.listener, Message: message})
				end := p.start(nil, "", "-c", becoming, p.path(), fmt.Sprint(uint8(test.client)))
				c := p.accept(l)
				for i, want := range test.owners {
					buf := make([]byte, 100)
					n, err := c.Read(buf)
					if got := string(buf[:n]); err != nil || got != "make a file\n" {
						t.Fatalf("write %d: the server reads %q, %v", i+1, got, err)
					}
					var owner [2]uint32
					err = c.RunAsClient(func(*guise.Scope) error {
						owner, err = makeFile(filepath.Join(p.dir, "made", fmt.Sprint(i)))
						return err
					})
					if err != nil || owner != want {
						t.Errorf("write %d: the server's file belongs to %v, %v, want %v", i+1, owner, err, want)
					}
					if _, err := c.Write([]byte("done\n")); err != nil {
						t.Fatal(err)
					}
				}
				if out, err := end(); err != nil || out != "done\ndone\ndone\n" {
					t.Errorf("the client prints %q, %v", out, err)
				}
			})
		}
	}
}

// changing is a client that becomes one user after another while it waits for a single answer, and the server's word each time.
const changing = `
import os, sys
os.setgroups([61021])
os.setresgid(61011, 61011, 61012)
os.setresuid(61001, 61001, 61002)
import client
with client.Pipe(sys.argv[1], tracking=int(sys.argv[2])) as pipe:
    pipe.write(b"make files\n")
    pipe.write(b"and another\n")
    assert pipe.changed()  # there is nothing to tell
    for uid, gid in (61002, 61012), (61001, 61011), (61002, 61012):
        assert sys.stdin.readline() == "change\n"
        os.setegid(gid)
        os.seteuid(uid)
        assert pipe.changed()
        print("changed", flush=True)
    assert sys.stdin.readline() == "change\n"
    os.setegid(61011)
    os.seteuid(61001)
    pipe.write(b"and one more\n")  # as whom the last write was, but not the last change
    print(pipe.read().decode(), end="")
`

// TestPythonClientAnnouncesBetweenWrites has the client change within one scope of the server's, which follows, and between scopes.
func TestPythonClientAnnouncesBetweenWrites(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the client is a user that can become another")
	}
	if err := features.DynamicTracking(); err != nil {
		t.Skip(err)
	}
	one, other := [2]uint32{61001, 61011}, [2]uint32{61002, 61012}
	tests := []struct {
		name   string
		client guise.Tracking
		owners [6][2]uint32
	}{
		{"dynamic", guise.Dynamic, [6][2]uint32{one, other, one, other, other, one}},
		{"unstated where the listener says dynamic", guise.TrackingUnstated, [6][2]uint32{one, other, one, other, other, one}},
		{"static", guise.Static, [6][2]uint32{one, one, one, one, one, one}},
	}
	for _, test := range tests {
		for _, message := range []bool{false, true} {
			for _, within := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/message=%v/within a scope=%v", test.name, message, within), func(t *testing.T) {
					if within {
						if err := guise.CanFollow(0); err != nil {
							t.Skip(err)
						}
					}
					testChanging(t, test.client, message, within, test.owners)
				})
			}
		}
	}
}

func testChanging(t *testing.T, client guise.Tracking, message, within bool, owners [6][2]uint32) {
	p := newPythonClient(t)
	l := p.listen(&guise.ListenConfig{Tracking: guise.Dynamic, Message: message})
	stdin, tell, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer tell.Close()
	heard, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	cmd := exec.Command(python, "-B", "-c", changing, p.path(), fmt.Sprint(uint8(client)))
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = p.dir, stdin, stdout, os.Stderr
	err = cmd.Start()
	stdin.Close()
	stdout.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	heard.SetReadDeadline(time.Now().Add(20 * time.Second))
	lines := bufio.NewReader(heard)

	c := p.accept(l)
	read := func(want string) {
		t.Helper()
		buf := make([]byte, len(want))
		n, err := io.ReadFull(c, buf)
		if got := string(buf[:n]); err != nil || got != want {
			t.Fatalf("the server reads %q, %v, want %q", got, err, want)
		}
	}
	read("make files\n")
	check := func(i int) {
		t.Helper()
		owner, err := makeFile(filepath.Join(p.dir, "made", fmt.Sprint(i)))
		if err != nil || owner != owners[i] {
			t.Errorf("the server's file %d belongs to %v, %v, want %v", i, owner, err, owners[i])
		}
	}
	// change has the client change, and returns when it has told so.
	change := func() {
		t.Helper()
		if _, err := tell.WriteString("change\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := lines.ReadString('\n'); err != nil || line != "changed\n" {
			t.Fatalf("the client says %q, %v", line, err)
		}
	}
	scope := func(f func(s *guise.Scope)) {
		t.Helper()
		if err := c.RunAsClient(func(s *guise.Scope) error { f(s); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if within {
		scope(func(s *guise.Scope) {
			check(0)
			for i := 1; i <= 3; i++ {
				changed := s.Changed()
				change()
				if owners[i] != owners[i-1] {
					select {
					case <-changed:
					case <-time.After(20 * time.Second):
						t.Fatalf("change %d does not arrive", i)
					}
				}
				check(i)
			}
		})
	} else {
		scope(func(*guise.Scope) { check(0) })
		for i := 1; i <= 3; i++ {
			change()
			scope(func(*guise.Scope) { check(i) })
		}
	}
	// Written before all that, and acted on as who the client is now.
	read("and another\n")
	scope(func(*guise.Scope) { check(4) })
	if _, err := tell.WriteString("change\n"); err != nil {
		t.Fatal(err)
	}
	read("and one more\n")
	scope(func(*guise.Scope) { check(5) })
	if _, err := c.Write([]byte("done\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := lines.ReadString('\n'); err != nil || line != "done\n" {
		t.Errorf("the client says %q, %v", line, err)
	}
}

// makeFile returns the owner and group of a file that it makes.
func makeFile(path string) (owner [2]uint32, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return owner, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return owner, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return [2]uint32{stat.Uid, stat.Gid}, nil
}

// A server that reads a path from each client and answers with the file, if the client may read it.
func Example() {
	l, err := guise.Listen("cat", nil)
	if err != nil {
		log.Fatal(err)
	}
	serve := func(c *guise.Conn) error {
		path, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			return err
		}
		return c.RunAsClient(func(*guise.Scope) error {
			b, err := os.ReadFile(strings.TrimSpace(path)) // permission denied, if the client may not read it
			if err != nil {
				return err
			}
			_, err = c.Write(b)
			return err
		})
	}
	for {
		c, err := l.AcceptPipe()
		if err != nil {
			log.Fatal(err)
		}
		go func() { log.Print(serve(c)); c.Close() }()
	}
}

// A client that only lets root serve it, and only lets it ask who calls.
func ExampleDialer() {
	dialer := guise.Dialer{
		QoS: &guise.QoS{Level: guise.Identification},
		CheckServer: func(server *token.Token) error {
			if server.UID() != 0 {
				return errors.New("it is not root's")
			}
			return nil
		},
	}
	c, err := dialer.Dial(context.Background(), "cat")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
}

// A program that is the client for good, with an environment of its own.
func ExampleScope_Command() {
	serve := func(c *guise.Conn) ([]byte, error) {
		var command *exec.Cmd
		err := c.RunAsClient(func(s *guise.Scope) error {
			command = s.Command("id", "-G")
			return nil
		})
		if err != nil {
			return nil, err
		}
		command.Env = []string{"PATH=/usr/bin:/bin"}
		return command.Output()
	}
	_ = serve
}
