package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// listen listens on a socket of the test's own, for servers that misbehave.
func listen(t *testing.T) *net.UnixListener {
	t.Helper()
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	l.SetDeadline(time.Now().Add(patience))
	return l
}

// accept has f serve the next client of l, and returns what it returned on the channel.
func accept(l *net.UnixListener, f func(*net.UnixConn) error) <-chan error {
	done := make(chan error, 1)
	go func() {
		conn, err := l.AcceptUnix()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		done <- f(conn)
	}()
	return done
}

func TestCallHalfCloses(t *testing.T) {
	s := serveOn(t, nil, "wc", "-c") // which answers at the end of its input
	input := strings.Repeat("x", 1_000_000)
	run(t, input, guiseProgram(t, "call", s.path)).expect(t, "guise call of wc -c", 0, "1000000\n")
}

func TestCallEchoesMuch(t *testing.T) {
	s := serveOn(t, nil, "cat")
	input := strings.Repeat("0123456789abcdef", 200_000) // more than all buffers hold
	for _, tracking := range []string{"static", "dynamic"} {
		run(t, input, guiseProgram(t, "call", "--tracking", tracking, s.path)).expect(t, "guise call of cat", 0, input)
	}
}

func TestCallEndsWithTheServer(t *testing.T) {
	s := serveOn(t, nil, "echo", "bye")
	call := guiseProgram(t, "call", s.path)
	input, err := call.StdinPipe() // which never ends
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	var out strings.Builder
	call.Stdout = &out
	if err := call.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { call.Process.Kill() })
	defer late.Stop()
	if err := call.Wait(); err != nil || out.String() != "bye\n" {
		t.Errorf("a call with endless input ended with %v and output %q; it should end with the server, status 0 and %q", err, out.String(), "bye\n")
	}
}

func TestCallSendsOnAfterTheAnswer(t *testing.T) {
	l := listen(t)
	const size = 3_000_000
	served := accept(l, func(conn *net.UnixConn) error {
		if err := conn.CloseWrite(); err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, conn)
		if err == nil && n != size+1 { // and the preface
			err = fmt.Errorf("%d bytes came of %d", n-1, size)
		}
		return err
	})
	run(t, strings.Repeat("x", size), guiseProgram(t, "call", l.Addr().String())).expect(t, "a call of a server that answers first", 0, "")
	if err := <-served; err != nil {
		t.Errorf("a server that has closed its sending side did not get the rest of the input: %v", err)
	}
}

func TestCallEndedEarly(t *testing.T) {
	l := listen(t)
	served := accept(l, func(conn *net.UnixConn) error {
		_, err := io.ReadFull(conn, make([]byte, 1000))
		return err
	})
	r := run(t, strings.Repeat("x", 3_000_000), guiseProgram(t, "call", l.Addr().String()))
	if r.status != statusFailed || !strings.Contains(r.err, "before it had read all of the input") {
		t.Errorf("a server that closes in the middle of the input: exit status %d, want %d and why: %s", r.status, statusFailed, r.err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestCallNoPipe(t *testing.T) {
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	r := run(t, "", guiseProgram(t, "call", path))
	if r.status != statusNoPipe || !strings.Contains(r.err, path) || !strings.Contains(r.err, "Start its server") {
		t.Errorf("a call of no pipe: exit status %d, want %d, with the pipe and what to do: %s", r.status, statusNoPipe, r.err)
	}
}

func TestCallDeadServer(t *testing.T) {
	l := listen(t)
	l.SetUnlinkOnClose(false)
	l.Close()
	r := run(t, "", guiseProgram(t, "call", l.Addr().String()))
	if r.status != statusNoPipe || !strings.Contains(r.err, "nobody listens") {
		t.Errorf("a call of a dead server's pipe: exit status %d, want %d and that nobody listens: %s", r.status, statusNoPipe, r.err)
	}
}

func TestCallBusy(t *testing.T) {
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("unix", path) // which fills the backlog
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	r := run(t, "", guiseProgram(t, "call", "--timeout", "200ms", path))
	if r.status != statusBusy || !strings.Contains(r.err, "busy") {
		t.Errorf("a call of a busy server: exit status %d, want %d and that it is busy: %s", r.status, statusBusy, r.err)
	}
}

func TestCallTimeout(t *testing.T) {
	l := listen(t)
	over := make(chan struct{})
	served := accept(l, func(conn *net.UnixConn) error {
		_, err := io.Copy(io.Discard, conn)
		<-over // no answer, and no end
		return err
	})
	r := run(t, "hello", guiseProgram(t, "call", "--timeout", "300ms", l.Addr().String()))
	close(over)
	if err := <-served; err != nil {
		t.Error(err)
	}
	if r.status != statusBusy || !strings.Contains(r.err, "timeout") {
		t.Errorf("a call of a server that does not answer: exit status %d, want %d and that the time is over: %s", r.status, statusBusy, r.err)
	}
}

func TestCallServerUID(t *testing.T) {
	l := listen(t)
	served := accept(l, func(conn *net.UnixConn) error {
		// What comes is that the client is anonymous to this server, and the end.
		first, err := receivePreface(conn)
		if err != nil {
			return err
		}
		defer first.Close()
		hello, _, err := first.Hello()
		if err != nil || hello.Level != token.Anonymous {
			return fmt.Errorf("the client states level %v, %w", hello.Level, err)
		}
		if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
			return fmt.Errorf("the client sent something: %q, %w", rest, err)
		}
		return nil
	})
	r := run(t, "secret", guiseProgram(t, "call", "--server-uid", "61099", l.Addr().String()))
	if r.status != statusUntrusted || !strings.Contains(r.err, "61099") || !strings.Contains(r.err, "Nothing was sent") {
		t.Errorf("a call of another's server: exit status %d, want %d and who it should be: %s", r.status, statusUntrusted, r.err)
	}
	if err := <-served; err != nil {
		t.Errorf("a server that is not trusted: %v", err)
	}

	s := serveOn(t, nil, "cat")
	uid := fmt.Sprint(os.Getuid())
	run(t, "hello", guiseProgram(t, "call", "--server-uid", uid, s.path)).expect(t, "a call of one's own server", 0, "hello")
}

// receivePreface waits for what comes first.
func receivePreface(conn *net.UnixConn) (r *announce.Receiver, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	waitErr := raw.Read(func(fd uintptr) bool {
		if first, peekErr := announce.PeekFirst(int(fd)); first == announce.Nothing && peekErr == nil {
			return false
		}
		r, err = announce.ReceivePreface(int(fd))
		return true
	})
	if waitErr != nil {
		return nil, waitErr
	}
	return r, err
}

func TestCallUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"a", "b"}, {"--level", "root", "a"}, {"--tracking", "x", "a"}, {"--timeout", "-1s", "a"}, {"--timeout", "soon", "a"}, {"--server-uid", "root", "a"},
	} {
		r := run(t, "", guiseProgram(t, append([]string{"call"}, args...)...))
		if r.status != statusUsage || !strings.Contains(r.err, "guise call --help") {
			t.Errorf("guise call %q: exit status %d, want %d and where to read on: %s", args, r.status, statusUsage, r.err)
		}
	}
}
