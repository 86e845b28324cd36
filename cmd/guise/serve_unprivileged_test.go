package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// serveAsService starts a server under a uid that is not root's, with ambient capabilities, in a directory made for it.
func serveAsService(t *testing.T, capabilities []uintptr, command ...string) *serving {
	t.Helper()
	needRoot(t)
	dir := testdir.Open(t, 0o755)
	if err := os.Chown(dir, service, service); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "pipe")
	server := guiseProgram(t, append([]string{"serve", path, "--"}, command...)...)
	server.Dir = "/"
	server.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: service, Gid: service, Groups: []uint32{}},
		AmbientCaps: capabilities,
	}
	return start(t, path, server)
}

func TestServeUnprivilegedService(t *testing.T) {
	needRoot(t)
	dir := proofDirectory(t)
	s := serveAsService(t, []uintptr{unix.CAP_SETUID, unix.CAP_SETGID}, "sh", "-c", proof, "sh", dir)
	for _, uid := range []uint32{alice, bob} {
		r := run(t, "", as(uid, guiseProgram(t, "call", s.path)))
		if r.status != 0 {
			t.Fatalf("guise call as uid %d: exit status %d: %s", uid, r.status, r.err)
		}
		checkProof(t, dir, uid, r.out)
	}

	for _, tracking := range []string{"static", "dynamic"} {
		run(t, "hello", guiseProgram(t, "call", "--tracking", tracking, s.path)).expect(t, "a call by root", statusRefused, "")
	}
	s.waitLogs(2, "client not let in", `client="root(0)`)
	if _, err := os.Stat(filepath.Join(dir, "made-by-0")); err == nil {
		t.Error("a service that is not root ran its command as root")
	}
}

// One that can see that root is this machine's own refuses it all the same.
func TestServeUnprivilegedServiceThatSeesRoot(t *testing.T) {
	s := serveAsService(t, []uintptr{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SYS_PTRACE}, "id", "-u")
	run(t, "", guiseProgram(t, "call", s.path)).expect(t, "a call by root", statusRefused, "")
	s.waitLog("client not let in", "a server that is not root never acts as uid 0")
}

// Such a service has no CAP_KILL, and still ends what it started.
func TestServeUnprivilegedServiceTerminated(t *testing.T) {
	s := serveAsService(t, []uintptr{unix.CAP_SETUID, unix.CAP_SETGID}, "sh", "-c", `echo $$; exec sleep 1000`)
	call := as(alice, guiseProgram(t, "call", s.path))
	out, err := call.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := call.Start(); err != nil {
		t.Fatal(err)
	}
	defer call.Wait()
	pid, err := strconv.Atoi(strings.TrimSpace(readFor(t, out, hasLine)))
	if err != nil {
		t.Fatal(err)
	}
	mustEnd := watch(t, pid)
	s.stop()
	mustEnd("the command of another user")
	s.waitLog("client served", `status="signal: terminated"`)
}

func TestServeWithoutPrivilege(t *testing.T) {
	s := serveAsService(t, nil, "id", "-u")
	s.waitLog("level=WARN", "CAP_SETUID", "AmbientCapabilities=")
	run(t, "", as(service, guiseProgram(t, "call", s.path))).expect(t, "a call by the server's own user", 0, fmt.Sprintln(service))
	run(t, "", as(alice, guiseProgram(t, "call", s.path))).expect(t, "a call by another user", statusRefused, "")
	s.waitLog("client not let in", "61001", "CAP_SETUID and CAP_SETGID")
}

// Whom no server acts as is told so, and does not take it for a command that has nothing to say.
func TestServeNobody(t *testing.T) {
	needRoot(t)
	s := serveOn(t, nil, "id", "-u")
	run(t, "", as(65534, guiseProgram(t, "call", s.path))).expect(t, "a call by nobody", statusRefused, "")
	s.waitLog("client not let in", "never worn")
}

func TestMayRunAs(t *testing.T) {
	self, err := token.Self()
	if err != nil {
		t.Fatal(err)
	}
	if err := mayRunAs(self); err != nil {
		t.Errorf("a command can't run as the server itself: %v", err)
	}
}
