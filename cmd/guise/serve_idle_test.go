package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
)

const idleLimit = 800 * time.Millisecond

func TestServeIdle(t *testing.T) {
	for _, kind := range [][]string{nil, {"--message"}} {
		s := serveOn(t, append(kind, "--idle", "3s", "--grace", "100ms"), "sh", "-c", `cat; echo never`)
		in, out, err := os.Pipe() // input that does not end
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		defer out.Close()
		if _, err := out.WriteString("hello\n"); err != nil {
			t.Fatal(err)
		}
		call := guiseProgram(t, "call", s.path)
		call.Stdin = in
		got, err := call.Output()
		if string(got) != "hello\n" || err != nil {
			t.Errorf("a client that falls silent got %q, %v", got, err)
		}
		s.waitLog("client served", "level=WARN", `ended="nothing passed for 3s (--idle)"`, `status="signal: terminated"`)
	}
}

// pace calls step often enough for three times idleLimit that nothing is idle. It reports false if this machine was too busy for that.
func pace(step func()) bool {
	ticker := time.NewTicker(idleLimit / 8)
	defer ticker.Stop()
	last := time.Now()
	for end := last.Add(3 * idleLimit); last.Before(end); last = time.Now() {
		step()
		<-ticker.C
		if time.Since(last) > idleLimit/2 {
			return false
		}
	}
	return true
}

func TestServeNotIdle(t *testing.T) {
	dir := testdir.Open(t, 0o755)
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	feed, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	buf := make([]byte, 256<<10)
	for name, c := range map[string]struct {
		command string
		step    func(conn *net.UnixConn)
	}{
		"the client sends": {`exec cat >/dev/null`, func(conn *net.UnixConn) { conn.Write([]byte("x")) }},
		"the command writes": {`exec cat "$1"`, func(conn *net.UnixConn) {
			feed.WriteString("x")
			conn.Read(buf[:1])
		}},
		"the client takes of much": {`exec cat /dev/zero`, func(conn *net.UnixConn) { io.ReadFull(conn, buf) }},
	} {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				s := serveOn(t, []string{"--idle", idleLimit.String(), "--grace", "100ms"}, "sh", "-c", c.command, "sh", fifo)
				conn := s.dial()
				say(t, conn, "x")
				inTime := pace(func() { c.step(conn) })
				ended := s.hasLog("client served")
				if !ended {
					// From here on nothing passes.
					s.waitLog("client served", "--idle")
					return
				}
				if inTime {
					t.Fatal("the command was ended although something passed all the time")
				}
			}
			t.Skip("this machine is too busy to pass something in time")
		})
	}
}

// What the command has ended by itself is not ended for being idle.
func TestServeIdleIsNotInTheWay(t *testing.T) {
	s := serveOn(t, []string{"--idle", patience.String()}, "cat")
	for range 20 {
		run(t, "hello", guiseProgram(t, "call", s.path)).expect(t, "a call", 0, "hello")
	}
}

// A client that takes of a full pipe, so little at a time that the command can't write on for longer than --idle, shows in the
// length of the socket's queue alone.
func TestServeNotIdleWithFullPipe(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	buf := make([]byte, 64<<10)
	for range 3 {
		s := serveOn(t, []string{"--idle", limit.String(), "--grace", "100ms"}, "cat", "/dev/zero")
		conn := s.dial()
		say(t, conn, "x")
		ticker := time.NewTicker(limit * 2 / 5)
		defer ticker.Stop()
		inTime := true
		last := time.Now()
		for end := last.Add(3 * limit); last.Before(end) && inTime; last = time.Now() {
			io.ReadFull(conn, buf)
			<-ticker.C
			inTime = time.Since(last) < limit*3/5
		}
		if !inTime {
			continue
		}
		if s.hasLog("client served") {
			t.Fatal("the command was ended although its client took something all the time")
		}
		s.waitLog("client served", "--idle")
		return
	}
	t.Skip("this machine is too busy to take something in time")
}
