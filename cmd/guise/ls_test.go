package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
)

// listAs runs guise ls as uid on the pipes of dir.
func listAs(t *testing.T, uid uint32, dir string) map[string]pipeReport {
	t.Helper()
	command := guiseProgram(t, "ls", "--json")
	command.Env = append(command.Env, "GUISE_DIR="+dir)
	r := run(t, "", as(uid, command))
	var pipes []pipeReport
	if err := json.Unmarshal([]byte(r.out), &pipes); err != nil || r.status != 0 {
		t.Fatalf("guise ls: exit status %d, %v, %q: %s", r.status, err, r.out, r.err)
	}
	found := make(map[string]pipeReport)
	for _, p := range pipes {
		if !p.Network {
			found[p.Name] = p
		}
	}
	return found
}

// serveName starts a server of a pipe with a name in dir.
func serveName(t *testing.T, dir, name string, flags ...string) *serving {
	t.Helper()
	command := guiseProgram(t, append(append([]string{"serve"}, flags...), name, "--", "cat")...)
	command.Env = append(command.Env, "GUISE_DIR="+dir)
	return start(t, filepath.Join(dir, name), command)
}

func TestLs(t *testing.T) {
	needRoot(t)
	dir := testdir.Open(t, 0o755)
	live := serveName(t, dir, "live", "--max", "1")
	serveName(t, dir, "messages", "--message", "--no-watch")
	serveName(t, dir, "private", "--mode", "0600")
	killed := serveName(t, dir, "killed")
	killed.command.Process.Kill()
	<-killed.exited
	for name, mode := range map[string]os.FileMode{"Upper": 0o600, "no-socket": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	conn := live.dial()
	say(t, conn, "x\n")
	readFor(t, conn, hasLine)
	live.dial()
	live.dial()

	one, none := 2, 0
	for _, uid := range []uint32{0, alice} {
		want := map[string]pipeReport{
			"live":     {Server: living, Kind: "bytes", Waiting: &one, Watched: true, Mode: "0666"},
			"messages": {Server: living, Kind: "messages", Waiting: &none, Mode: "0666"},
			"private":  {Server: living, Kind: "bytes", Waiting: &none, Watched: true, Mode: "0600"},
			"killed":   {Server: dead, Mode: "0666"},
		}
		got := listAs(t, uid, dir)
		if len(got) != len(want) {
			t.Errorf("guise ls as uid %d shows %v", uid, got)
		}
		for name, w := range want {
			g := got[name]
			waiting := g.Waiting == nil && w.Waiting == nil || g.Waiting != nil && w.Waiting != nil && *g.Waiting == *w.Waiting
			if g.Server != w.Server || g.Kind != w.Kind || !waiting || g.Watched != w.Watched || g.Mode != w.Mode || g.UID != 0 || g.Path != filepath.Join(dir, name) {
				t.Errorf("guise ls as uid %d shows the pipe %s as %+v, want %+v", uid, name, g, w)
			}
		}
	}
	command := guiseProgram(t, "ls")
	command.Env = append(command.Env, "GUISE_DIR="+dir)
	out := run(t, "", command).out
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if fields := strings.Fields(line); len(fields) != 8 {
			t.Errorf("a row of guise ls has %d fields: %s", len(fields), line)
		}
	}
	// Nobody was disturbed.
	conn.Close()
	live.waitLogs(1, `msg="client `)
	if killed := listAs(t, 0, dir)["killed"]; killed.Server != dead {
		t.Error("looking changed what is there")
	}
}

// A server sees nothing of it.
func TestLsDisturbsNobody(t *testing.T) {
	dir := testdir.Open(t, 0o755)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "pipe"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for range 3 {
		if p := listAs(t, uint32(os.Getuid()), dir)["pipe"]; p.Server != living || *p.Waiting != 0 || p.Watched {
			t.Fatalf("guise ls shows %+v", p)
		}
	}
	raw, err := listener.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if _, _, err := unix.Accept4(int(fd), unix.SOCK_NONBLOCK); err != unix.EAGAIN {
			t.Errorf("guise ls connected: accept gives %v", err)
		}
	})
}

// A server in another network namespace lists its sockets there; that it lives can be seen all the same.
func TestLsOtherNetworkNamespace(t *testing.T) {
	needRoot(t)
	unshare := needProgram(t, "/usr/bin/unshare")
	dir := testdir.Open(t, 0o755)
	path := filepath.Join(dir, "far")
	command := guiseProgram(t)
	command.Path = unshare
	command.Args = []string{unshare, "-n", program(t), "serve", path, "--", "cat"}
	start(t, path, command)
	p := listAs(t, 0, dir)["far"]
	if p.Server != living || p.Kind != "" || p.Waiting != nil || !p.Watched {
		t.Errorf("guise ls shows a server in another network namespace as %+v", p)
	}
}

func TestLsUserDirectory(t *testing.T) {
	runtime := testdir.Open(t, 0o700)
	dir := filepath.Join(runtime, "guise", "pipe")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	serveName(t, dir, "own")
	command := guiseProgram(t, "ls")
	command.Env = append(command.Env, "GUISE_DIR=", "XDG_RUNTIME_DIR="+runtime)
	if r := run(t, "", command); r.status != 0 || !hasAll(r.out, []string{"own", "live", filepath.Join(dir, "own")}) {
		t.Errorf("a user's own pipe is not shown: exit status %d, %s%s", r.status, r.out, r.err)
	}
	if os.Getuid() != 0 {
		return
	}
	// Another's directory does not count.
	if err := os.Chown(runtime, bob, bob); err != nil {
		t.Fatal(err)
	}
	command = guiseProgram(t, "ls")
	command.Env = append(command.Env, "GUISE_DIR=", "XDG_RUNTIME_DIR="+runtime)
	if r := run(t, "", command); strings.Contains(r.out, "own") {
		t.Errorf("another user's pipe is shown: %s", r.out)
	}
}

func TestLsNothing(t *testing.T) {
	command := guiseProgram(t, "ls", "--json") // with a GUISE_DIR that isn't there
	if r := run(t, "", command); r.status != 0 || !strings.HasPrefix(r.out, "[") {
		t.Errorf("no pipes: exit status %d, %q: %s", r.status, r.out, r.err)
	}
	needRoot(t)
	dir := testdir.Open(t, 0o700)
	command = guiseProgram(t, "ls")
	command.Env = append(command.Env, "GUISE_DIR="+dir)
	if r := run(t, "", as(alice, command)); r.status != statusFailed || !strings.Contains(r.err, dir) {
		t.Errorf("a directory that can't be read: exit status %d, want %d: %s", r.status, statusFailed, r.err)
	}
}

func TestCompletion(t *testing.T) {
	dir := testdir.Open(t, 0o755)
	serveName(t, dir, "watched")
	serveName(t, dir, "unwatched", "--no-watch")
	killed := serveName(t, dir, "walking-dead")
	killed.command.Process.Signal(syscall.SIGKILL)
	<-killed.exited
	for _, c := range []struct {
		args      []string
		want, not []string
	}{
		{[]string{"call", ""}, []string{"watched\t", "unwatched\t", ":4"}, []string{"walking-dead"}},
		{[]string{"call", "WA"}, []string{"watched\t"}, []string{"unwatched\t"}},
		{[]string{"call", "./"}, []string{":0"}, []string{"watched"}},
		{[]string{"call", "watched", ""}, []string{":4"}, []string{"watched"}},
		{[]string{"watch", ""}, []string{"watched\t"}, []string{"unwatched\t"}},
		{[]string{"call", "--level", ""}, []string{"anonymous", "identification", "impersonation", "delegation", ":4"}, nil},
		{[]string{"call", "--tracking", ""}, []string{"static", "dynamic"}, nil},
		{[]string{"serve", "--log", ""}, []string{"text", "json", "journal"}, nil},
		{[]string{"serve", "--require-group", "roo"}, []string{"root\n"}, nil},
		{[]string{"serve", ""}, []string{":4"}, []string{"watched"}},
		{[]string{""}, []string{"serve\t", "call\t", "ls\t", "completion\t"}, []string{"man\t"}},
	} {
		command := guiseProgram(t, append([]string{"__complete"}, c.args...)...)
		command.Env = append(command.Env, "GUISE_DIR="+dir)
		out := "\n" + run(t, "", command).out
		for _, want := range c.want {
			if !strings.Contains(out, "\n"+want) {
				t.Errorf("after guise %q the shell is not offered %q: %q", c.args, want, out)
			}
		}
		for _, not := range c.not {
			if strings.Contains(out, "\n"+not) {
				t.Errorf("after guise %q the shell is offered %q: %q", c.args, not, out)
			}
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := run(t, "", guiseProgram(t, "completion", shell)); r.status != 0 || !strings.Contains(r.out, "guise") {
			t.Errorf("guise completion %s: exit status %d: %s", shell, r.status, r.err)
		}
	}
	// Bash takes the script.
	bash := needProgram(t, "/bin/bash", "/usr/bin/bash")
	command := guiseProgram(t, "completion", "bash")
	script := run(t, "", command).out
	command = guiseProgram(t)
	command.Path, command.Args = bash, []string{bash, "-n"}
	run(t, script, command).expect(t, "bash -n of its completion", 0, "")
}
