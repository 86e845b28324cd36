package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// waiting returns how many clients wait to be accepted at a socket's path, as the kernel counts them.
func waiting(t *testing.T, path string) int {
	t.Helper()
	p := &pipeReport{Path: path}
	var err error
	if p.file, err = os.Stat(path); err != nil {
		t.Fatal(err)
	}
	lookAlive([]*pipeReport{p})
	if p.Waiting == nil {
		t.Fatalf("the kernel does not tell of a listener at %s", path)
	}
	return *p.Waiting
}

func TestServeMax(t *testing.T) {
	const most = 2
	s := serveOn(t, []string{"--max", strconv.Itoa(most)}, "cat")
	for range most {
		conn := s.dial()
		say(t, conn, "first\n")
		readFor(t, conn, hasLine)
		defer conn.Close()
	}
	beyond := s.dial()
	say(t, beyond, "waits\n")
	eventually(t, "a client beyond --max waits to be accepted", func() bool { return waiting(t, s.path) == 1 })
	next := s.dial()
	say(t, next, "next\n")
	eventually(t, "two clients beyond --max wait to be accepted", func() bool { return waiting(t, s.path) == 2 })
	s.stop()
}

func TestServeMaxServesTheNextWhenOneEnds(t *testing.T) {
	s := serveOn(t, []string{"--max", "1"}, "cat")
	first, second := s.dial(), s.dial()
	say(t, first, "first\n")
	readFor(t, first, hasLine)
	say(t, second, "second\n")
	eventually(t, "the second client waits to be accepted", func() bool { return waiting(t, s.path) == 1 })
	first.Close()
	if got := readFor(t, second, hasLine); got != "second\n" {
		t.Errorf("the client that waited got %q", got)
	}
	second.Close()
	s.waitLogs(2, "client served")
}

// A client that has said nothing has a place, until --idle takes it away.
func TestServeMaxOfSilentClients(t *testing.T) {
	s := serveOn(t, []string{"--max", "1", "--idle", "3s"}, "cat")
	silent := s.dial()
	run(t, "hello", guiseProgram(t, "call", s.path)).expect(t, "a call behind a silent client", 0, "hello")
	s.waitLog("client refused", "level=WARN", "it has said nothing for 3s (--idle)")
	if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a client that was silent for too long reads %v, want the end", err)
	}
}

func TestServeMaxPerUser(t *testing.T) {
	needRoot(t)
	s := serveOn(t, []string{"--max-per-user", "1"}, "cat")
	mine := s.dial()
	say(t, mine, "x\n")
	readFor(t, mine, hasLine)
	run(t, "hello", guiseProgram(t, "call", s.path)).expect(t, "the second client of one user", statusRefused, "")
	s.waitLog("client not let in", "uid 0 has 1 connection already (--max-per-user)")
	run(t, "hello", as(alice, guiseProgram(t, "call", s.path))).expect(t, "a call of another user", 0, "hello")
	mine.Close()
	s.waitLogs(2, "client served")
	eventually(t, "the first user's place is free again", func() bool {
		return run(t, "hello", guiseProgram(t, "call", s.path)).out == "hello"
	})
}

// stubborn ignores SIGTERM; it writes its process id.
const stubborn = `trap "" TERM; echo $$; exec sleep 1000`

// firstNumber reads the line that a command begins with.
func firstNumber(t *testing.T, r io.Reader) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(readFor(t, r, hasLine)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestServeTimeout(t *testing.T) {
	for _, c := range []struct {
		name, command, status string
	}{
		{"polite", `echo $$; exec sleep 1000`, `status="signal: terminated"`},
		{"stubborn", stubborn, `status="signal: killed"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serveOn(t, []string{"--timeout", "3s", "--grace", "100ms"}, "sh", "-c", c.command)
			conn := s.dial()
			say(t, conn, "x")
			mustEnd := watch(t, firstNumber(t, conn))
			mustEnd("a command that runs for longer than --timeout")
			s.waitLog("client served", "level=WARN", `ended="it ran for longer than 3s (--timeout)"`, c.status)
			if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("its client reads %v, want the end", err)
			}
		})
	}
	t.Run("in time", func(t *testing.T) {
		s := serveOn(t, []string{"--timeout", patience.String()}, "echo", "done")
		run(t, "", guiseProgram(t, "call", s.path)).expect(t, "a call", 0, "done\n")
		if line := s.waitLog("client served"); strings.Contains(line, "ended=") {
			t.Errorf("a command that ended by itself: %s", line)
		}
	})
}

func TestServeGrace(t *testing.T) {
	s := serveOn(t, []string{"--grace", "0s"}, "sh", "-c", stubborn)
	conn := s.dial()
	say(t, conn, "x")
	mustEnd := watch(t, firstNumber(t, conn))
	began := time.Now()
	s.stop()
	if took := time.Since(began); took >= defaultGrace {
		t.Errorf("without a grace period the server took %v to end", took)
	}
	mustEnd("a command that ignores SIGTERM")
	s.waitLog("client served", `ended="the server ended"`, `status="signal: killed"`)
}

func TestServeGraceIsUsed(t *testing.T) {
	s := serveOn(t, []string{"--grace", patience.String()}, "sh", "-c", `trap 'echo late; exit 7' TERM; echo $$; while :; do sleep 0.01; done`)
	conn := s.dial()
	say(t, conn, "x")
	firstNumber(t, conn)
	s.stop()
	s.waitLog("client served", `ended="the server ended"`, "status=7")
	if got, err := io.ReadAll(conn); string(got) != "late\n" || err != nil {
		t.Errorf("what a command says in its grace period came as %q, %v", got, err)
	}
}

func TestServeLimitsUsage(t *testing.T) {
	for _, flags := range []string{
		"--max 0", "--max -1", "--max many", "--max 99999999999999999999", "--max-per-user 0", "--timeout 0s", "--timeout -1s", "--timeout 5", "--idle 0s", "--idle -1m", "--grace -1s",
		"--log xml", "--group", "--require-group", "--group=", "--require-group=",
	} {
		args := append(append([]string{"serve"}, strings.Fields(flags)...), "/nonexistent/pipe", "--", "cat")
		r := run(t, "", guiseProgram(t, args...))
		if r.status != statusUsage || !strings.Contains(r.err, "guise serve --help") {
			t.Errorf("guise serve %s: exit status %d, want %d and where to read on: %s", flags, r.status, statusUsage, r.err)
		}
		if strings.Contains(r.err, "strconv") {
			t.Errorf("guise serve %s: this is not said to a person: %s", flags, r.err)
		}
	}
}

func TestServeLimitsOfMessages(t *testing.T) {
	s := serveOn(t, []string{"--message", "--timeout", "300ms", "--max", "1"}, "sleep", "1000")
	for i := range 2 {
		run(t, "hello", guiseProgram(t, "call", s.path))
		s.waitLogs(i+1, "client served", "--timeout")
	}
}
