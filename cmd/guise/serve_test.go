package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// proof is a command that has the kernel show as whom it runs: in the directory $1 it makes a file and tries the private files of
// two users and a group.
const proof = `
: > "$1/made-by-$IPCREMOTEEUID"
printf 'HTTP/1.0 200 OK\r\n\r\n'
for f in alice bob group; do
	printf '%s: ' $f
	LC_ALL=C cat "$1/$f" 2>&1
done
`

// proofDirectory makes the files for proof in a directory where everybody may make some.
func proofDirectory(t *testing.T) string {
	t.Helper()
	dir := testdir.Open(t, 0o1777)
	for _, f := range []struct {
		name     string
		uid, gid int
		mode     os.FileMode
	}{
		{"alice", alice, alice, 0o600},
		{"bob", bob, bob, 0o600},
		{"group", 0, aliceGroup, 0o040},
	} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, []byte("readable\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, f.uid, f.gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, f.mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// checkProof fails the test unless the kernel took the command for uid.
func checkProof(t *testing.T, dir string, uid uint32, out string) {
	t.Helper()
	var made unix.Stat_t
	path := filepath.Join(dir, "made-by-"+strconv.Itoa(int(uid)))
	if err := unix.Stat(path, &made); err != nil {
		t.Fatalf("the command made no file: %v; it wrote %q", err, out)
	}
	if made.Uid != uid || made.Gid != uid {
		t.Errorf("the file that the command made belongs to %d:%d, want %d:%d", made.Uid, made.Gid, uid, uid)
	}
	for name, may := range map[string]bool{"alice": uid == alice, "bob": uid == bob, "group": uid == alice} {
		denied := name + ": cat: " + filepath.Join(dir, name) + ": Permission denied"
		if may && !strings.Contains(out, name+": readable") {
			t.Errorf("uid %d could not read the file %s, which is readable to it: %q", uid, name, out)
		}
		if !may && !strings.Contains(out, denied) {
			t.Errorf("uid %d did not get EACCES on the file %s of others: %q", uid, name, out)
		}
	}
}

const pythonClient = `
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"hello")
s.shutdown(socket.SHUT_WR)
while True:
    b = s.recv(4096)
    if not b: break
    sys.stdout.write(b.decode())
`

func TestServePlainClients(t *testing.T) {
	needRoot(t)
	dir := proofDirectory(t)
	s := serveOn(t, nil, "sh", "-c", proof, "sh", dir)
	clients := []struct {
		name string
		args []string
	}{
		{"curl", []string{"-sS", "--unix-socket", s.path, "http://pipe/"}},
		{"socat", []string{"-", "UNIX-CONNECT:" + s.path}},
		{"python3", []string{"-c", pythonClient, s.path}},
	}
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			path := needProgram(t, "/usr/bin/"+c.name, "/usr/local/bin/"+c.name)
			for _, uid := range []uint32{alice, bob} {
				os.Remove(filepath.Join(dir, "made-by-"+strconv.Itoa(int(uid))))
				command := guiseProgram(t)
				command.Path, command.Args = path, append([]string{path}, c.args...)
				r := run(t, "hello\n", as(uid, command))
				if r.status != 0 {
					t.Fatalf("%s as uid %d: exit status %d: %s", c.name, uid, r.status, r.err)
				}
				checkProof(t, dir, uid, r.out)
			}
		})
	}
}

func TestServeOwnClients(t *testing.T) {
	needRoot(t)
	dir := proofDirectory(t)
	s := serveOn(t, nil, "sh", "-c", proof, "sh", dir)
	for _, uid := range []uint32{alice, bob} {
		r := run(t, "", as(uid, guiseProgram(t, "call", s.path)))
		if r.status != 0 {
			t.Fatalf("guise call as uid %d: exit status %d: %s", uid, r.status, r.err)
		}
		checkProof(t, dir, uid, r.out)
	}
}

func TestServeSilentClientBlocksNobody(t *testing.T) {
	s := serveOn(t, nil, "cat")
	silent := s.dial()
	run(t, "hello", guiseProgram(t, "call", s.path)).expect(t, "a call beside a silent client", 0, "hello")

	if _, err := silent.Write([]byte("at last\n")); err != nil {
		t.Fatal(err)
	}
	if got := readFor(t, silent, hasLine); got != "at last\n" {
		t.Errorf("the client that was silent for long got %q once it spoke, want its own words back from cat", got)
	}
}

func TestServeEndOfSilentClientCounts(t *testing.T) {
	s := serveOn(t, nil, "echo", "served")
	conn := s.dial()
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "served\n" || err != nil {
		t.Errorf("a client that only ends its side got %q, %v; want it served", got, err)
	}
}

func TestServeUnreadInputIsNoReset(t *testing.T) {
	s := serveOn(t, nil, "echo", "served")
	for i := range 30 {
		conn := s.dial()
		if _, err := conn.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		s.waitLogs(i+1, "client served") // by then the server has closed, or is about to
		if got, err := io.ReadAll(conn); string(got) != "served\n" || err != nil {
			t.Fatalf("a client of a command that does not read its input got %q, %v; want the output and the end", got, err)
		}
		conn.Close()
	}
}

func TestServeLog(t *testing.T) {
	needRoot(t)
	s := serveOn(t, nil, "sh", "-c", `cat >/dev/null; exit 3`)
	run(t, "", as(alice, guiseProgram(t, "call", s.path))).expect(t, "guise call", 0, "")
	line := s.waitLog("client served")
	for _, part := range []string{
		"level=INFO", "pipe=" + s.path, "uid=61001", "gid=61001", "pid=", `client="61001 groups=61001,61005"`,
		"qos.level=impersonation", "qos.tracking=static", "qos.effectiveOnly=false", "status=3", "duration=",
	} {
		if !strings.Contains(line, part) {
			t.Errorf("the client's line in the log has no %s: %s", part, line)
		}
	}
}

func TestServeLogSignal(t *testing.T) {
	s := serveOn(t, nil, "sh", "-c", `kill -KILL $$`)
	run(t, "", guiseProgram(t, "call", s.path)).expect(t, "guise call", 0, "")
	s.waitLog("client served", `status="signal: killed"`)
}

func TestServeRefusesBelowImpersonation(t *testing.T) {
	dir := testdir.Open(t, 0o1777)
	s := serveOn(t, nil, "touch", filepath.Join(dir, "ran"))
	for level, parts := range map[string][]string{
		"identification": {"client refused", "level=WARN", "qos.level=identification", fmt.Sprintf("uid=%d", os.Getuid()), "this pipe takes impersonation"},
		"anonymous":      {"client refused", "level=WARN", "qos.level=anonymous", "this pipe takes impersonation"},
	} {
		t.Run(level, func(t *testing.T) {
			run(t, "", guiseProgram(t, "call", "--level", level, s.path)).expect(t, "guise call", statusRefused, "")
			line := s.waitLog(parts...)
			if level == "anonymous" && strings.Contains(line, " uid=") {
				t.Errorf("the log tells who an anonymous client is: %s", line)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
		t.Error("the command ran for a client that allows less than impersonation")
	}
}

func TestServeTracking(t *testing.T) {
	for _, c := range []struct {
		listener, client []string
		want             string
	}{
		{nil, nil, "static"},
		{nil, []string{"--tracking", "dynamic"}, "dynamic"},
		{[]string{"--tracking", "dynamic"}, nil, "dynamic"},
		{[]string{"--tracking", "dynamic"}, []string{"--tracking", "static"}, "static"},
	} {
		t.Run(fmt.Sprintf("listener %v client %v", c.listener, c.client), func(t *testing.T) {
			s := serveOn(t, c.listener, "cat")
			args := append(append([]string{"call"}, c.client...), s.path)
			run(t, "hello", guiseProgram(t, args...)).expect(t, "guise call", 0, "hello")
			s.waitLog("client served", "qos.tracking="+c.want)
		})
	}
	t.Run("plain client of a dynamic listener", func(t *testing.T) {
		s := serveOn(t, []string{"--tracking", "dynamic"}, "true")
		s.dial().Close()
		s.waitLog("client served", "qos.tracking=static")
	})
}

func TestServeMode(t *testing.T) {
	needRoot(t)
	s := serveOn(t, []string{"--mode", "0600"}, "cat")
	r := run(t, "", as(alice, guiseProgram(t, "call", s.path)))
	if r.status != statusRefused || !strings.Contains(r.err, "permission denied") {
		t.Errorf("a call of a pipe with mode 0600 by another user: exit status %d, want %d and permission denied: %s", r.status, statusRefused, r.err)
	}
}

func TestServeEnvironment(t *testing.T) {
	needRoot(t)
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	command := guiseProgram(t, "serve", path, "--", "env")
	command.Env = append(command.Env, "LANG=xx_XX.UTF-8", "SECRET=of the server's", "LISTEN_FDNAMES=x")
	s := start(t, path, command)

	out := run(t, "", as(alice, guiseProgram(t, "call", s.path))).out
	env := "\n" + out
	for _, want := range []string{
		"PATH=" + userPath, "PROTO=IPC", "IPCREMOTEEUID=61001", "IPCREMOTEEGID=61001", "IPCREMOTEPATH=", "IPCLOCALPATH=" + s.path, "LANG=xx_XX.UTF-8",
	} {
		if !strings.Contains(env, "\n"+want+"\n") {
			t.Errorf("the command's environment has no %s:\n%s", want, out)
		}
	}
	for _, unwanted := range []string{"SECRET", "LISTEN_FDNAMES", asProgram, "HOME", "USER"} {
		if strings.Contains(env, "\n"+unwanted+"=") {
			t.Errorf("the command's environment has %s, which is the server's or of no account:\n%s", unwanted, out)
		}
	}

	out = run(t, "", guiseProgram(t, "call", s.path)).out
	for _, want := range []string{"PATH=" + rootPath, "USER=root", "LOGNAME=root", "HOME=/root", "SHELL=/"} {
		if !strings.Contains("\n"+out, "\n"+want) {
			t.Errorf("the environment of a command for root has no %s:\n%s", want, out)
		}
	}
}

func TestServeRemotePath(t *testing.T) {
	s := serveOn(t, nil, "sh", "-c", `echo "$IPCREMOTEPATH"`)
	bound := filepath.Join(testdir.Open(t, 0o755), "client")
	conn, err := net.DialUnix("unix", &net.UnixAddr{Name: bound, Net: "unix"}, &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.CloseWrite()
	if got, _ := io.ReadAll(conn); string(got) != bound+"\n" {
		t.Errorf("IPCREMOTEPATH is %q for a client whose socket is bound to %q", got, bound)
	}
}

func TestServeCommandNotFound(t *testing.T) {
	s := serveOn(t, nil, "no-such-program-here")
	run(t, "", guiseProgram(t, "call", s.path)).expect(t, "guise call", 0, "")
	s.waitLog("client served", "status=127")
	s.waitLog("no-such-program-here", "not found")
	s.waitLog("level=WARN", "there is no such program", "command=no-such-program-here")
}

func TestProgramMissing(t *testing.T) {
	dir := testdir.Open(t, 0o755)
	for name, want := range map[string]bool{
		"sh": false, "/bin/sh": false, "no-such-program-here": true, "/bin/no-such-program-here": true, "./sh": true,
		dir: false, // that it can't be run is another thing
	} {
		if got := programMissing(name); got != want {
			t.Errorf("%s is said to be missing: %v, want %v", name, got, want)
		}
	}
}

// Descriptors run out while clients are silent; the server has to be there when they have gone.
func TestServeOutOfDescriptors(t *testing.T) {
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	command := guiseProgram(t)
	command.Path = "/bin/sh"
	command.Args = []string{"sh", "-c", `ulimit -n 24; exec "$@"`, "sh", program(t), "serve", path, "--", "cat"}
	s := start(t, path, command)
	var silent []net.Conn
	const many = 40
	connect := func(*guise.Scope) error {
		for range many {
			silent = append(silent, s.dial())
		}
		return nil
	}
	// Of root the server has to see more, which takes a descriptor: root would not be let in, and leave the others theirs.
	client, err := token.Self()
	if err == nil && os.Getuid() == 0 {
		client, err = token.FromIDs(alice, alice, nil)
	}
	if err == nil {
		err = guise.RunAs(client, connect)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.waitLog("no client can be accepted for now", "too many open files")
	for _, c := range silent {
		c.Close()
	}
	s.waitLogs(many, `msg="client `) // served or refused, as descriptors allow
	run(t, "hello", guiseProgram(t, "call", s.path)).expect(t, "a call after descriptors had run out", 0, "hello")
}

func TestServeMessages(t *testing.T) {
	python := needProgram(t, "/usr/bin/python3", "/usr/local/bin/python3")
	s := serveOn(t, []string{"--message"}, "cat")
	command := guiseProgram(t)
	command.Path = python
	command.Args = []string{python, "-c", `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
for m in (b"one", b"two and more", b"3"): s.send(m)
for i in range(3): print(s.recv(4096).decode())
s.shutdown(socket.SHUT_WR)
print("end", s.recv(4096))
`, s.path}
	run(t, "", command).expect(t, "a Python client of messages", 0, "one\ntwo and more\n3\nend b''\n")
	run(t, "hello", guiseProgram(t, "call", s.path)).expect(t, "guise call of a pipe of messages", 0, "hello")
	long := strings.Repeat("0123456789abcdef", 20_000) // several messages
	run(t, long, guiseProgram(t, "call", "--tracking", "dynamic", s.path)).expect(t, "guise call of a pipe of messages", 0, long)
}

func TestServeTerminated(t *testing.T) {
	s := serveOn(t, nil, "sh", "-c", `
sleep 1000 &
polite=$!
sh -c 'trap "" TERM; echo ready; exec sleep 1000' &
echo $$ $polite $!
wait`)
	conn := s.dial()
	silent := s.dial()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	out := readFor(t, conn, func(s string) bool { return strings.Count(s, "\n") == 2 })
	var leader, polite, stubborn int
	if _, err := fmt.Sscan(strings.Replace(out, "ready\n", "", 1), &leader, &polite, &stubborn); err != nil {
		t.Fatalf("the command wrote %q: %v", out, err)
	}
	var mustEnd []func(string)
	for _, pid := range []int{leader, polite, stubborn} {
		mustEnd = append(mustEnd, watch(t, pid))
	}
	s.stop()
	mustEnd[0]("the command")
	mustEnd[1]("a child of the command")
	mustEnd[2]("a child of the command that ignores SIGTERM")
	if _, err := os.Lstat(s.path); err == nil {
		t.Errorf("the socket %s is still there after the server's end", s.path)
	}
	if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a silent client reads %v when the server ends, want the end", err)
	}
	s.waitLog("client served", `status="signal: terminated"`)
	s.waitLog("client refused", "the server ended before the client had said anything")
	s.waitLog("msg=ended")
}

func TestServeTerminatedKillsStubbornCommand(t *testing.T) {
	t.Parallel()
	s := serveOn(t, nil, "sh", "-c", `trap "" TERM; echo $$; exec sleep 1000`)
	conn := s.dial()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(readFor(t, conn, hasLine)))
	if err != nil {
		t.Fatal(err)
	}
	mustEnd := watch(t, pid)
	s.stop()
	mustEnd("a command that ignores SIGTERM")
	s.waitLog("client served", `status="signal: killed"`)
}

func TestServeInterrupted(t *testing.T) {
	s := serveOn(t, nil, "cat")
	if err := s.command.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-s.exited
	if status := s.command.ProcessState; status.ExitCode() != 0 {
		t.Errorf("the server ended with %v after SIGINT, want exit status 0", status)
	}
	if _, err := os.Lstat(s.path); err == nil {
		t.Errorf("the socket %s is still there after the server's end", s.path)
	}
}

func TestServeNameTaken(t *testing.T) {
	s := serveOn(t, nil, "cat")
	r := run(t, "", guiseProgram(t, "serve", s.path, "--", "cat"))
	if r.status != statusFailed || !strings.Contains(r.err, "a live server has this pipe") || !strings.Contains(r.err, "another name") {
		t.Errorf("a second server on one pipe: exit status %d, want %d, with what to do: %s", r.status, statusFailed, r.err)
	}
}

func TestServeUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"pipe"}, {"pipe", "cat"}, {"--", "cat"}, {"pipe", "--"}, {"pipe", "more", "--", "cat"},
		{"--mode", "9", "pipe", "--", "cat"}, {"--mode", "0", "pipe", "--", "cat"}, {"--tracking", "some", "pipe", "--", "cat"}, {"--nonsense", "pipe", "--", "cat"},
	} {
		r := run(t, "", guiseProgram(t, append([]string{"serve"}, args...)...))
		if r.status != statusUsage || !strings.Contains(r.err, "guise serve --help") {
			t.Errorf("guise serve %q: exit status %d, want %d and where to read on: %s", args, r.status, statusUsage, r.err)
		}
	}
}
