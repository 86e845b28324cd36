package guise_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// program is a shell that a scope has started. All processes of its group have its output open.
type program struct {
	cmd  *exec.Cmd
	said *bufio.Reader
	read *os.File
}

// runs starts a shell script in a scope and waits until it has said that it is ready.
func runs(s *guise.Scope, script string) (*program, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p := &program{s.Command("/bin/sh", "-c", script), bufio.NewReader(r), r}
	p.cmd.Stdout = w
	err = p.cmd.Start()
	w.Close()
	if err == nil {
		r.SetReadDeadline(time.Now().Add(patience))
		var line string
		if line, err = p.said.ReadString('\n'); err == nil && line != "ready\n" {
			err = fmt.Errorf("it says %q", line)
		}
	}
	return p, err
}

// ends waits until no process of the group is left, and returns what they have said and how the shell ended.
func (p *program) ends() (said string, status syscall.WaitStatus, err error) {
	defer p.read.Close()
	p.read.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(p.said)
	if err != nil {
		killed := make(chan error)
		go func() { killed <- syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }() // as the server
		err = errors.Join(err, <-killed)
	}
	waitErr := p.cmd.Wait()
	if exit := (*exec.ExitError)(nil); waitErr != nil && !errors.As(waitErr, &exit) {
		err = errors.Join(err, waitErr)
	}
	return string(b), p.cmd.ProcessState.Sys().(syscall.WaitStatus), err
}

const (
	sleeps   = "echo ready; while :; do sleep 0.02; done"
	tidies   = "trap 'echo tidy; exit 3' TERM; " + sleeps
	stubborn = "trap '' TERM; " + sleeps
	family   = "(" + sleeps + ") & sleep 1000 & wait"
)

var programTests = []struct {
	name, script string
	said         string
	exit         int
	signal       syscall.Signal
}{
	{"one that tidies up", tidies, "tidy\n", 3, -1},
	{"one that does not", sleeps, "", -1, syscall.SIGTERM},
	{"one that ignores SIGTERM", stubborn, "", -1, syscall.SIGKILL},
	{"one with children", family, "", -1, syscall.SIGTERM},
	{"one whose children ignore SIGTERM", "(" + stubborn + ") & exec sleep 1000", "", -1, syscall.SIGTERM},
}

func TestProgramEndsWhenItsClientChanges(t *testing.T) {
	needRoot(t)
	defer guise.SetProgramGrace(200 * time.Millisecond)()
	alice, bob := identity(t, 61001, 61001), identity(t, 61002, 61001)
	for _, test := range programTests {
		t.Run(test.name, func(t *testing.T) {
			client := play(t)
			client.become(alice)
			_, server := client.opens(listenOn(t, nil), dynamic)
			inside(t, server, func(s *guise.Scope) {
				p, err := runs(s, test.script)
				if err != nil {
					t.Errorf("starting it: %v", err)
					return
				}
				client.become(bob)
				said, status, err := p.ends()
				if err != nil {
					t.Errorf("after its client has changed it does not end: %v", err)
				}
				if said != test.said || status.ExitStatus() != test.exit || status.Signal() != test.signal {
					t.Errorf("it said %q and ended with status %d, %v; want %q, %d, %v", said, status.ExitStatus(), status.Signal(), test.said, test.exit, test.signal)
				}
				// The next is who the client is now.
				if out, err := s.Command("/bin/sh", "-c", "id -u; id -g").Output(); string(out) != "61002\n61001\n" || err != nil {
					t.Errorf("a program that is started after the change is %q, %v", out, err)
				}
			})
		})
	}
}

// TestProgramThatIsMadeBeforeAndStartedAfterTheChange must not run as who the client was.
func TestProgramThatIsMadeBeforeAndStartedAfterTheChange(t *testing.T) {
	needRoot(t)
	client := play(t)
	client.become(identity(t, 61001, 61001))
	_, server := client.opens(listenOn(t, nil), dynamic)
	inside(t, server, func(s *guise.Scope) {
		cmd := s.Command("/bin/sh", "-c", "id -u")
		changed := s.Changed()
		client.become(identity(t, 61002, 61001))
		inTime(t, "the scope hears of its client's change", changed)
		if out, err := cmd.Output(); len(out) != 0 || !errors.Is(err, guise.ErrContextChanged) {
			t.Errorf("a command that was made before the change and started after it says %q, %v; want ErrContextChanged", out, err)
		}
	})
}

func TestProgramsThatAreLeftAlone(t *testing.T) {
	needRoot(t)
	defer guise.SetProgramGrace(0)()
	alice, bob := identity(t, 61001, 61001), identity(t, 61002, 61001)
	for _, test := range []struct {
		name   string
		config guise.ListenConfig
		qos    guise.QoS
		leave  bool // the scope, before the client changes
	}{
		{"KeepPrograms", guise.ListenConfig{KeepPrograms: true}, *dynamic, false},
		{"static tracking", guise.ListenConfig{}, guise.QoS{Tracking: guise.Static}, false},
		{"a scope that has ended", guise.ListenConfig{}, *dynamic, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := play(t)
			client.become(alice)
			l := listenOn(t, &test.config)
			beside := witnessOf(t, client, l)
			_, server := client.opens(l, &test.qos)
			var p *program
			change := func() {
				beside.sees(bob)
				// It would say so if it were signalled.
				signalled := make(chan error)
				go func() { signalled <- p.cmd.Process.Signal(syscall.SIGUSR1) }() // as the server
				if err := <-signalled; err != nil {
					t.Errorf("it has gone: %v", err)
				}
			}
			inside(t, server, func(s *guise.Scope) {
				var err error
				if p, err = runs(s, "trap 'echo TERM' TERM; trap 'echo still here; exit 0' USR1; "+sleeps); err != nil {
					t.Fatalf("starting it: %v", err)
				}
				if !test.leave {
					change()
				}
			})
			if test.leave {
				change()
			}
			if said, status, err := p.ends(); said != "still here\n" || !status.Exited() || err != nil {
				t.Errorf("it said %q and ended with %v, %v", said, status, err)
			}
		})
	}
}

// TestProgramOfAServerWithoutCAP_KILLEnds has a server that is not root and may just act as others.
func TestProgramOfAServerWithoutCAP_KILLEnds(t *testing.T) {
	needRoot(t)
	for i, test := range programTests {
		t.Run(test.name, func(t *testing.T) {
			attr := &syscall.SysProcAttr{
				Credential:  &syscall.Credential{Uid: 61200, Gid: 61200, Groups: []uint32{}},
				AmbientCaps: []uintptr{token.CapSetuid, token.CapSetgid, token.CapSetpcap},
			}
			dir := testdir.Open(t, 0o755)
			if err := os.Chown(dir, 61200, 61200); err != nil {
				t.Fatal(err)
			}
			p := startRole(t, "programs", attr, "GUISE_TEST_DIR="+dir)
			want := fmt.Sprintf("%q %d %d <nil>", test.said, test.exit, int(test.signal))
			if got := p.tell(fmt.Sprint(i)); got != want {
				t.Errorf("it says %s, want %s (what was said, exit status, signal, error)", got, want)
			}
		})
	}
}

var _ = addRole("programs", func() {
	guise.SetProgramGrace(200 * time.Millisecond)
	l := must1(guise.Listen(filepath.Join(os.Getenv("GUISE_TEST_DIR"), "pipe"), nil))
	defer l.Close()
	n := 0
	must1(fmt.Scanln(&n))
	alice, bob := must1(token.FromIDs(61001, 61001, nil)), must1(token.FromIDs(61002, 61001, nil))
	changes, ended := make(chan struct{}), make(chan struct{})
	go func() { // the client, whose thread changes alone
		defer close(ended)
		lockAnd(func() error { return rawBecome(alice) })
		near := must1(guise.Dial(l.Addr().String(), dynamic))
		must1(near.Write([]byte("x")))
		<-changes
		must(rawBecome(bob))
		<-changes
		near.Close()
	}()
	server := must1(l.AcceptPipe())
	must1(server.Read(make([]byte, 1)))
	must(server.RunAsClient(func(s *guise.Scope) error {
		p, err := runs(s, programTests[n].script)
		must(err)
		if err := unix.Kill(p.cmd.Process.Pid, 0); err == nil && unix.Geteuid() != 61001 {
			must(errors.New("this process may signal others' programs"))
		}
		changes <- struct{}{}
		said, status, err := p.ends()
		fmt.Printf("%q %d %d %v\n", said, status.ExitStatus(), int(status.Signal()), oneLine(err))
		return nil
	}))
	close(changes)
	<-ended
})

func oneLine(err error) any {
	if err == nil {
		return nil
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
