package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/guise-project/guise/internal/machines"
	"github.com/guise-project/guise/internal/machinestest"
)

// network is three machines, with the program on each.
type network struct {
	*machines.Network
	t       *testing.T
	program string
}

func makeNetwork(t *testing.T) *network {
	t.Helper()
	n := machinestest.Start(t, &machines.Config{Accounts: []machines.Account{
		{Name: "alice", UID: alice, GID: alice, Groups: []machines.Group{{Name: "staff", GID: aliceGroup}}, Password: "of-alice"},
		{Name: "bob", UID: bob, GID: bob, Password: "of-bob"},
	}})
	inside, err := n.Machines[0].Install("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return &network{n, t, inside}
}

// python3 is Debian's, which has its modules.
const python3 = "/usr/bin/python3"

// needImpacket skips the test where Python's SMB client is not installed, or fails it where it has to be.
func needImpacket(t *testing.T) {
	t.Helper()
	if out, err := exec.Command(python3, "-c", "import impacket").CombinedOutput(); err != nil {
		machinestest.Missing(t, fmt.Sprintf("Debian's python3-impacket is not installed: %v: %s", err, out))
	}
}

// guise returns the program as a command of an account's, root's if that is "".
func (n *network) guise(m *machines.Machine, account string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	n.t.Cleanup(cancel)
	command := m.CommandAs(ctx, account, n.program, args...)
	if account == "" {
		command = m.Command(ctx, n.program, args...)
	}
	command.Env = append(command.Env, asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	return command
}

// serve starts guise serve on a machine, until the end of the test, and waits until its pipe is there.
func (n *network) serve(m *machines.Machine, pipe string, args ...string) (log *bytes.Buffer, stop func()) {
	n.t.Helper()
	log = new(bytes.Buffer)
	server := n.guise(m, "", append([]string{"serve", "--network"}, args...)...)
	server.Stderr = log
	if err := server.Start(); err != nil {
		n.t.Fatal(err)
	}
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		if err := m.Signal(server, syscall.SIGTERM); err != nil {
			n.t.Error(err)
		}
		if err := server.Wait(); err != nil {
			n.t.Errorf("guise serve: %v\n%s", err, log)
		}
	}
	n.t.Cleanup(stop)
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(m.Path(m.NP + "/" + pipe)); err == nil {
			return log, stop
		}
		if time.Now().After(end) {
			n.t.Fatalf("%s was not published within %v", pipe, patience)
		}
	}
}

func TestServeAndCallBetweenMachines(t *testing.T) {
	needRoot(t)
	n := makeNetwork(t)
	client, server := n.Machines[0], n.Machines[2]
	log, stop := n.serve(server, "notes", "notes", "--", "/bin/sh", "-c",
		`read -r line; echo "$line" >>"/tmp/notes-of-$USER"; echo "$USER $(id -u) $(id -G) $PROTO $SMBREMOTEUSER $SMBREMOTEDOMAIN $SMBREMOTEIP $SMBENCRYPTED [$IPCREMOTEPATH]"`)
	n.serve(server, "echoed", "--message", "--network-name", "Echoed", "other", "--", "/bin/dd", "bs=64K", "count=1", "status=none")
	name := `\\` + server.Host + `\pipe\Notes`
	for path, text := range map[string]string{"/tmp/right": "of-alice\n", "/tmp/wrong": "of-bob", "/tmp/empty": "\n", "/tmp/long": strings.Repeat("x", 1025)} {
		if err := os.WriteFile(client.Path(path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	calls := func(status int, stdout, stderr string, args ...string) {
		t.Helper()
		command := n.guise(client, "alice", append([]string{"call"}, args...)...)
		var out, errs bytes.Buffer
		command.Stdin, command.Stdout, command.Stderr = strings.NewReader("buy milk\n"), &out, &errs
		command.Run()
		if got := command.ProcessState.ExitCode(); got != status || out.String() != stdout || !strings.Contains(errs.String(), stderr) || stderr == "" && errs.Len() > 0 {
			t.Errorf("guise call %q: status %d, %q, %q; want %d, %q and to be told %q", args, got, out.String(), errs.String(), status, stdout, stderr)
		}
	}
	answer := func(domain, encrypted string) string {
		return fmt.Sprintf("alice %d %d %d SMB alice %s %s %s []\n", alice, alice, aliceGroup, domain, client.Address, encrypted)
	}

	calls(8, "", "no Kerberos ticket", name)
	calls(0, answer("MACHINE3", "0"), "", "--user", "alice", "--password-file", "/tmp/right", name)
	calls(0, answer("MACHINE3", "1"), "", "--user", `MACHINE3\alice`, "--password-file", "/tmp/right", "--encrypt", name)
	calls(8, "", "wrong", "--user", "alice", "--password-file", "/tmp/wrong", name)
	calls(1, "", "is empty", "--user", "alice", "--password-file", "/tmp/empty", name)
	calls(1, "", "too long", "--user", "alice", "--password-file", "/tmp/long", name)
	calls(1, "", "--password-file", "--user", "alice", name) // there is no terminal

	if err := client.Login(t.Context(), "alice", time.Hour); err != nil {
		t.Fatal(err)
	}
	calls(0, answer("GUISE", "0"), "", name)
	calls(0, answer("GUISE", "0"), "", "--tracking", "dynamic", "//"+server.Host+"/pipe/notes")
	calls(0, answer("GUISE", "1"), "", "--encrypt", name)
	calls(1, "", "level", "--level", "identification", name)
	calls(1, "", "level", "--level", "delegation", name)
	calls(3, "", "none called", `\\`+server.Host+`\pipe\nothing`)
	calls(8, "", "address", `\\`+server.Address.String()+`\pipe\notes`)
	calls(0, answer("GUISE", "0"), "", "--principal", "cifs/"+server.Host, `\\`+server.Address.String()+`\pipe\notes`)
	calls(7, "", "refused", "--address", server.Address.String()+":446", name)
	calls(2, "", "--server-uid", "--server-uid", "0", name)
	calls(2, "", "takes --user", "--password-file", "/tmp/right", name)
	calls(2, "", "on other machines", "--encrypt", "notes")
	calls(0, "buy milk\n", "", "--message", "--timeout", "20s", `\\`+server.Host+`\pipe\echoed`)

	notes, err := os.ReadFile(server.Path("/tmp/notes-of-alice"))
	if err != nil || strings.Count(string(notes), "buy milk\n") != 6 {
		t.Errorf("alice's notes are %q, %v", notes, err)
	}
	info, err := os.Stat(server.Path("/tmp/notes-of-alice"))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != alice {
		t.Errorf("alice's notes belong to %+v, %v", info, err)
	}
	stop()
	if got := log.String(); !strings.Contains(got, "from GUISE") || !strings.Contains(got, client.Address.String()) {
		t.Errorf("the server's log does not say where its clients are from:\n%s", got)
	}
	calls(3, "", "none called", name)
}

// TestAnswerArrivesThoughTheServerEnds: the client reads it when the server has been told to end.
func TestAnswerArrivesThoughTheServerEnds(t *testing.T) {
	needRoot(t)
	needImpacket(t)
	n := makeNetwork(t)
	client, server := n.Machines[0], n.Machines[2]
	_, stop := n.serve(server, "notes", "notes", "--", "/bin/sh", "-c", `read -r line; echo "noted, $line"; echo >/tmp/answered`)
	const script = `
import sys
from impacket.smbconnection import SMBConnection
c = SMBConnection(sys.argv[1], sys.argv[1])
c.login("alice", "of-alice")
tree = c.connectTree("IPC$")
pipe = c.openFile(tree, "\\notes")
c.writeFile(tree, pipe, b"milk\n")
print("written", flush=True)
sys.stdin.readline()
print(c.readFile(tree, pipe, singleCall=True), flush=True)
`
	command := client.Command(t.Context(), python3, "-c", script, server.Host)
	var errs bytes.Buffer
	command.Stderr = &errs
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	if line, err := said.ReadString('\n'); line != "written\n" {
		command.Wait()
		t.Fatalf("the client says %q, %v\n%s", line, err, &errs)
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(server.Path("/tmp/answered")); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the command has not answered")
		}
	}
	ended := make(chan struct{})
	go func() { defer close(ended); stop() }()
	// It listens no more, so it knows that it is to end.
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(server.Path(server.NP + "/notes")); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the server has not taken its socket away")
		}
	}
	in.Write([]byte("\n"))
	if line, err := said.ReadString('\n'); line != `b'noted, milk\n'`+"\n" {
		t.Errorf("the client reads %q, %v", line, err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("the client: %v\n%s", err, &errs)
	}
	<-ended
}

// TestClientThatSendsWithoutEndDoesNotHoldTheServerUp though a child of the command, which reads nothing, lives on.
func TestClientThatSendsWithoutEndDoesNotHoldTheServerUp(t *testing.T) {
	needRoot(t)
	needImpacket(t)
	n := makeNetwork(t)
	client, server := n.Machines[0], n.Machines[2]
	log, stop := n.serve(server, "flooded", "--message", "flooded", "--", "/bin/sh", "-c",
		`sleep 1000 2>/dev/null & while [ ! -e /tmp/enough ]; do sleep 0.01; done; exit 0`)
	const script = `
import sys
from impacket.smbconnection import SMBConnection
c = SMBConnection(sys.argv[1], sys.argv[1])
c.login("alice", "of-alice")
tree = c.connectTree("IPC$")
pipe = c.openFile(tree, "\\flooded")
try:
    while True:
        c.writeFile(tree, pipe, b"x" * 4000)
        print("written", flush=True)
except Exception:
    pass
`
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	command := client.Command(ctx, python3, "-c", script, server.Host)
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{}, 1<<16)
	go func() {
		defer close(written)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			written <- struct{}{}
		}
	}()
	// Nobody reads, so at some time all room is taken.
	<-written
	for full := false; !full; {
		select {
		case _, open := <-written:
			full = !open
		case <-time.After(time.Second):
			full = true
		}
	}
	if err := os.WriteFile(server.Path("/tmp/enough"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("the client: %v", err)
	}
	for range written { // to its end
	}
	stop()
	if got := log.String(); !strings.Contains(got, "client served") || strings.Contains(got, "leaving it behind") {
		t.Errorf("the server's log does not say that the client was served:\n%s", got)
	}
}
