package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
)

func TestServeRequireGroup(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name   string
		groups []uint32
		in     []uint32
		out    []uint32
	}{
		{"supplementary", []uint32{aliceGroup}, []uint32{alice}, []uint32{bob, 0}},
		{"primary", []uint32{bob}, []uint32{bob}, []uint32{alice, 0}},
		{"one of two", []uint32{aliceGroup, bob}, []uint32{alice, bob}, []uint32{0, service}},
		{"root's own", []uint32{0}, []uint32{0}, []uint32{alice}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var flags []string
			for _, gid := range c.groups {
				flags = append(flags, "--require-group", strconv.Itoa(int(gid)))
			}
			s := serveOn(t, flags, "id", "-u")
			for _, uid := range c.in {
				run(t, "", as(uid, guiseProgram(t, "call", s.path))).expect(t, "a call by a member", 0, strconv.Itoa(int(uid))+"\n")
			}
			for _, uid := range c.out {
				run(t, "", as(uid, guiseProgram(t, "call", s.path))).expect(t, "a call by somebody else", statusRefused, "")
			}
			s.waitLogs(len(c.out), "client not let in", "(--require-group)")
		})
	}
}

func TestServeGroup(t *testing.T) {
	needRoot(t)
	s := serveOn(t, []string{"--group", strconv.Itoa(aliceGroup), "--mode", "0660"}, "id", "-u")
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if gid := info.Sys().(*syscall.Stat_t).Gid; gid != aliceGroup || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket has the group %d and mode %v, want %d and 0660", gid, info.Mode().Perm(), aliceGroup)
	}
	run(t, "", as(alice, guiseProgram(t, "call", s.path))).expect(t, "a call by a member", 0, "61001\n")
	run(t, "", as(bob, guiseProgram(t, "call", s.path))).expect(t, "a call by somebody else", statusRefused, "")
}

// A group by itself lets its members in, and not everybody.
func TestServeGroupWithoutMode(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		flags []string
		want  os.FileMode
	}{
		{nil, 0o666},
		{[]string{"--group", strconv.Itoa(aliceGroup)}, 0o660},
		{[]string{"--group", strconv.Itoa(aliceGroup), "--mode", "0666"}, 0o666},
	} {
		s := serveOn(t, c.flags, "id", "-u")
		info, err := os.Stat(s.path)
		if err != nil || info.Mode().Perm() != c.want {
			t.Errorf("with %q the socket has the mode %v, %v; want %v", c.flags, info.Mode().Perm(), err, c.want)
		}
	}
}

func TestServeGroupOfOthers(t *testing.T) {
	needRoot(t)
	dir := testdir.Open(t, 0o755)
	if err := os.Chown(dir, alice, alice); err != nil {
		t.Fatal(err)
	}
	r := run(t, "", as(alice, guiseProgram(t, "serve", "--group", strconv.Itoa(bob), dir+"/pipe", "--", "cat")))
	if r.status != statusFailed || !hasAll(r.err, []string{"--group", dir + "/pipe", "not permitted", "has to be in that group"}) || strings.Contains(r.err, "directory") {
		t.Errorf("--group of a group that the server is not in: exit status %d, want %d and what to do: %s", r.status, statusFailed, r.err)
	}
}

func TestServeUnknownGroup(t *testing.T) {
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	for _, flag := range []string{"--group", "--require-group"} {
		for _, group := range []string{"no-such-group-here", "4294967295", "-1"} {
			r := run(t, "", guiseProgram(t, "serve", flag+"="+group, path, "--", "cat"))
			if r.status != statusFailed || !hasAll(r.err, []string{flag, "there is no such group", "getent group"}) {
				t.Errorf("%s=%s: exit status %d, want %d and what to do: %s", flag, group, r.status, statusFailed, r.err)
			}
		}
	}
}

// withGroups starts a server in a mount namespace in which /etc/group is a file of the test's own.
func withGroups(t *testing.T, groups string, flags ...string) (s *serving, file string) {
	t.Helper()
	needRoot(t)
	unshare := needProgram(t, "/usr/bin/unshare")
	dir := testdir.Open(t, 0o755)
	file = filepath.Join(dir, "group")
	writeGroups(t, file, groups)
	path := filepath.Join(dir, "pipe")
	command := guiseProgram(t)
	command.Path = unshare
	command.Args = append([]string{unshare, "-m", "sh", "-c", `mount --bind "$0" /etc/group && exec "$@"`, file, program(t), "serve"}, flags...)
	command.Args = append(command.Args, path, "--", "id", "-u")
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // on a terminal SIGHUP is another thing
	return start(t, path, command), file
}

// writeGroups writes a file as group(5) has it, after what the machine has. It stays the same file.
func writeGroups(t *testing.T, file, groups string) {
	t.Helper()
	there, err := os.ReadFile("/etc/group")
	if err == nil {
		err = os.WriteFile(file, append(there, groups...), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestServeReload(t *testing.T) {
	s, file := withGroups(t, "guise-staff:x:61777:\n", "--require-group", "guise-staff", "--group", "guise-staff")
	call := func() result { return run(t, "", as(alice, guiseProgram(t, "call", s.path))) }
	call().expect(t, "a call by somebody who is not in the group", statusRefused, "")

	writeGroups(t, file, "guise-staff:x:"+strconv.Itoa(aliceGroup)+":\n")
	call().expect(t, "a call before the reload", statusRefused, "")
	s.hangUp()
	s.waitLog("msg=reloaded")
	call().expect(t, "a call after the reload", 0, "61001\n")
	var socket unix.Stat_t
	if err := unix.Stat(s.path, &socket); err != nil || socket.Gid != aliceGroup {
		t.Errorf("after the reload the socket has the group %d, %v; want %d", socket.Gid, err, aliceGroup)
	}

	// The group goes away: all stays as it was.
	writeGroups(t, file, "")
	s.hangUp()
	s.waitLog("level=ERROR", "not reloaded", "guise-staff", "there is no such group")
	call().expect(t, "a call after a reload that failed", 0, "61001\n")
}

// A reload that fails half-way has changed nothing.
func TestServeReloadAllOrNothing(t *testing.T) {
	s, file := withGroups(t, "guise-staff:x:61777:\n", "--require-group", "guise-staff", "--group", "guise-staff", "--mode", "0666")
	call := func() result { return run(t, "", as(alice, guiseProgram(t, "call", s.path))) }
	writeGroups(t, file, "guise-staff:x:"+strconv.Itoa(aliceGroup)+":\n")
	away := s.path + ".away"
	for n, c := range []struct {
		name    string
		replace func() error
		says    string
	}{
		{"the socket is gone", func() error { return nil }, "no such file"},
		{"another one is there", func() error { return unix.Mknod(s.path, unix.S_IFSOCK|0o666, 0) }, "not this server's any more"},
	} {
		if err := errors.Join(os.Rename(s.path, away), c.replace()); err != nil {
			t.Fatal(err)
		}
		s.hangUp()
		s.waitLogs(n+1, "level=ERROR", "not reloaded", "--group", s.path)
		if !s.hasLog("not reloaded", c.says) {
			t.Errorf("%s: the log does not say %q", c.name, c.says)
		}
		var there unix.Stat_t
		if err := unix.Stat(s.path, &there); err == nil && there.Gid == aliceGroup {
			t.Errorf("%s: it was given the group", c.name)
		}
		if err := os.Rename(away, s.path); err != nil {
			t.Fatal(err)
		}
		call().expect(t, "a call after a reload that failed: "+c.name, statusRefused, "")
	}
	s.hangUp()
	s.waitLog("msg=reloaded")
	call().expect(t, "a call after the reload", 0, "61001\n")
}

func (s *serving) hangUp() {
	s.t.Helper()
	if err := s.command.Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
}

// A reload leaves clients that are there alone.
func TestServeReloadKeepsClients(t *testing.T) {
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	command := guiseProgram(t, "serve", path, "--", "cat")
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s := start(t, path, command)
	conn := s.dial()
	say(t, conn, "before\n")
	readFor(t, conn, hasLine)
	s.hangUp()
	s.waitLog("msg=reloaded")
	say(t, conn, "after\n")
	if got := readFor(t, conn, hasLine); got != "after\n" {
		t.Errorf("after a reload the client got %q", got)
	}
}

func TestServeHangUpOnTerminal(t *testing.T) {
	script := needProgram(t, "/usr/bin/script")
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	command := guiseProgram(t)
	command.Path = script
	log := filepath.Join(filepath.Dir(path), "log")
	command.Args = []string{script, "-qec", program(t) + " serve " + path + " -- cat 2>" + log, "/dev/null"}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	logged := func() string {
		b, _ := os.ReadFile(log)
		return string(b)
	}
	eventually(t, "the server on a terminal listens", func() bool { return strings.Contains(logged(), "msg=listening") })
	// Its terminal hangs up.
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a server ends when its terminal hangs up", func() bool { return strings.Contains(logged(), "msg=ended") })
	<-ended
}

// A server that is started with nohup ignores SIGHUP.
func TestServeNoHangUp(t *testing.T) {
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	command := guiseProgram(t)
	command.Path = "/bin/sh"
	command.Args = []string{"sh", "-c", `trap "" HUP; exec "$@"`, "sh", program(t), "serve", path, "--", "cat"}
	s := start(t, path, command)
	s.hangUp()
	run(t, "hello", guiseProgram(t, "call", s.path)).expect(t, "a call after SIGHUP", 0, "hello")
	if s.hasLog("reloaded") {
		t.Error("a server that is to ignore SIGHUP reloaded")
	}
}
