package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

func TestViaText(t *testing.T) {
	for _, c := range []struct {
		via  []token.Hop
		want string
	}{
		{nil, ""},
		{[]token.Hop{{PID: 7, Program: "/usr/bin/editor"}, {PID: 0}}, "/usr/bin/editor(7),?(0)"},
		{[]token.Hop{{PID: 7, Program: "/tmp/x(1),/bin/su"}}, "/tmp/x%281%29%2C/bin/su(7)"},
		{[]token.Hop{{PID: 7, Program: "/tmp/a b\n;$(id)%41\xff?"}}, "/tmp/a%20b%0A%3B%24%28id%29%2541%FF%3F(7)"},
		{[]token.Hop{{PID: 7, Program: "/" + strings.Repeat("x", longestProgram)}}, "?(7)"},
	} {
		if got := viaText(c.via); got != c.want {
			t.Errorf("the way of %q is told as %q, want %q", c.via, got, c.want)
		}
	}
}

// The command's environment tells who the client is, and through whom it came.
func TestServeEnvironmentOfChain(t *testing.T) {
	needRoot(t)
	s := serveOn(t, nil, "sh", "-c", `printf '%s\n' "$GUISE_CLIENT" "$GUISE_LEVEL" "$GUISE_TRACKING" "$GUISE_VIA"; id -u`)
	run(t, "", as(bob, guiseProgram(t, "call", "--tracking", "dynamic", "--level", "delegation", s.path))).
		expect(t, "a client that speaks for itself", 0, "61002\ndelegation\ndynamic\n\n61002\n")
	if line := s.waitLog("client served", "account=61002"); strings.Contains(line, "via=") {
		t.Errorf("a client that speaks for itself came through others: %s", line)
	}
	run(t, "", guiseProgram(t, "call", s.path)).expect(t, "a client with an account", 0, "root\nimpersonation\nstatic\n\n0\n")

	// A server in between acts as alice.
	r, middle := s.callThrough(program(t))
	lines := strings.Split(strings.TrimSuffix(r.out, "\n"), "\n")
	want := regexp.MustCompile(`^` + regexp.QuoteMeta(escape(program(t))) + `\(\d+\),` + regexp.QuoteMeta(fmt.Sprintf("%s(%d)", escape(program(t)), middle)) + `$`)
	if len(lines) != 5 || lines[0] != "61001" || lines[4] != "61001" || !want.MatchString(lines[3]) {
		t.Fatalf("a client that another server acts for is told as %q, want alice by way of %v; %s", lines, want, r.err)
	}
	s.waitLog("client served", "account=61001", "uid=61001", fmt.Sprintf("pid=%d", middle), "via="+lines[3])
}

// A program's name can't make the log, or the environment, say more than that.
func TestServeViaOfHostileName(t *testing.T) {
	needRoot(t)
	s := serveOn(t, nil, "sh", "-c", `printf '%s' "$GUISE_VIA"`)
	hostile := filepath.Join(testdir.Open(t, 0o755), "x(1),\nlevel=INFO msg=forged")
	b, err := os.ReadFile(program(t))
	if err == nil {
		err = os.WriteFile(hostile, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, middle := s.callThrough(hostile)
	if want := fmt.Sprintf(",%s(%d)", escape(hostile), middle); !strings.HasSuffix(r.out, want) || strings.ContainsAny(r.out, "\n ") || strings.Count(r.out, ",") != 1 {
		t.Errorf("the way through a program of a hostile name is %q, want %s at its end: %s", r.out, want, r.err)
	}
	if s.waitLog("client served"); s.hasLog("level=INFO msg=forged") {
		t.Error("a program's name forged a line of the log")
	}
}

// callThrough calls the server as alice, through another one whose executable is middle.
func (s *serving) callThrough(middle string) (r result, pid int) {
	s.t.Helper()
	path := filepath.Join(testdir.Open(s.t, 0o755), "middle")
	command := guiseProgram(s.t)
	command = &exec.Cmd{Path: middle, Args: []string{"middle", path, s.path}, Env: append(command.Env, asMiddle+"=1")}
	other := startOnly(s.t, path, command)
	other.waitLog("middle listens")
	r = run(s.t, "", as(alice, guiseProgram(s.t, "call", path)))
	<-other.exited
	return r, command.Process.Pid
}

// asMiddle is set in the environment of a process that is to be a server, which calls another as its one client.
const asMiddle = "GUISE_TEST_MIDDLE"

func playMiddle(path, next string) {
	listener, err := guise.Listen(path, nil)
	if err == nil {
		fmt.Fprintln(os.Stderr, "middle listens")
		err = callAsClient(listener, next)
		listener.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func callAsClient(listener *guise.Listener, next string) error {
	client, err := listener.AcceptPipe()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.WaitClient(context.Background()); err != nil {
		return err
	}
	return client.RunAsClient(func(*guise.Scope) error {
		conn, err := guise.Dial(next, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = io.Copy(client, conn)
		return err
	})
}
