package guise_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/procevents"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/internal/without"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// roleT is what the helpers of the tests take in a process that plays a role: what fails there ends it.
type roleT struct{ testing.TB }

func (roleT) Helper()        {}
func (roleT) Cleanup(func()) {}
func (roleT) Failed() bool   { return false }
func (roleT) Errorf(format string, args ...any) {
	must(fmt.Errorf(format, args...))
}
func (roleT) Error(args ...any) { must(errors.New(fmt.Sprint(args...))) }
func (roleT) Fatal(args ...any) { must(errors.New(fmt.Sprint(args...))) }
func (roleT) Fatalf(format string, args ...any) {
	must(fmt.Errorf(format, args...))
}

// roleServer listens in the directory of the test, and returns what was logged so far.
func roleServer(config guise.ListenConfig) (*guise.Listener, *bytes.Buffer) {
	var log bytes.Buffer
	config.Logger = slog.New(slog.NewTextHandler(&log, nil))
	dir := must1(os.MkdirTemp(os.Getenv("GUISE_TEST_DIR"), ""))
	must(os.Chmod(dir, 0o755))
	return must1(guise.Listen(filepath.Join(dir, "pipe"), &config)), &log
}

// plays has a process play a role and say that all was well.
func plays(t *testing.T, role string, attr *syscall.SysProcAttr) {
	t.Helper()
	if attr != nil && attr.Cloneflags != 0 {
		if err := without.Namespaces(attr.Cloneflags); err != nil {
			t.Skipf("this machine lets nobody make the namespaces %#x: %v", attr.Cloneflags, err)
		}
	}
	p := startRole(t, role, attr, "GUISE_TEST_DIR="+testdir.Open(t, 0o755))
	if got := p.tell(""); got != "all is well" {
		t.Errorf("the process says %s", got)
	}
}

var (
	roleAlice = must1(token.FromIDs(61001, 61001, nil))
	roleBob   = must1(token.FromIDs(61002, 61001, nil))
)

var _ = addRole("no process connector", func() {
	if err := procevents.Available(); err == nil {
		must(errors.New("the process connector is there"))
	}
	t := roleT{}
	l, _ := roleServer(guise.ListenConfig{})
	client := play(t)
	client.become(roleAlice)
	_, server := client.opens(l, dynamic)
	inside(t, server, func(*guise.Scope) {
		for _, to := range []*token.Token{roleBob, roleAlice, roleBob} {
			client.become(to)
			becomes(t, "without the process connector", to)
		}
		groups := must1(token.FromIDs(61002, 61001, []uint32{61109}))
		client.become(groups)
		becomes(t, "without the process connector, after a change of groups alone,", groups)
	})
	fmt.Println("all is well")
})

func TestChangesAreFoundWithoutTheProcessConnector(t *testing.T) {
	needRoot(t)
	plays(t, "no process connector", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
}

// TestChangeOfGroupsAloneIsFound has a client make the one change that the process connector does not tell of.
func TestChangeOfGroupsAloneIsFound(t *testing.T) {
	needRoot(t)
	client := play(t)
	client.become(identity(t, 61001, 61001, 61101))
	_, server := client.opens(listenOn(t, nil), dynamic)
	inside(t, server, func(*guise.Scope) {
		to := identity(t, 61001, 61001, 61102)
		client.become(to)
		becomes(t, "after a change of groups alone", to)
	})
}

var _ = addRole("signal 34 is taken", func() {
	ignore := struct {
		handler, flags, restorer, mask uintptr
	}{handler: 1} // SIG_IGN
	if _, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, 34, uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0); e != 0 {
		must(e)
	}
	t := roleT{}
	l, log := roleServer(guise.ListenConfig{})
	if err := guise.CanFollow(0); !errors.Is(err, thread.ErrCannotFollow) || !strings.Contains(err.Error(), "signal 34") {
		must(fmt.Errorf("CanFollow says %w", err))
	}
	if !strings.Contains(log.String(), "next entry only") || !strings.Contains(log.String(), "signal 34") {
		must(fmt.Errorf("Listen logs %q", log))
	}
	followsAtTheNextEntry(t, l)
	// S12 at the next entry as well.
	breaksAfterTheScope(t, l)
	fmt.Println("all is well")
})

func followsAtTheNextEntry(t testing.TB, l *guise.Listener) {
	client := play(t)
	client.become(roleAlice)
	_, server := client.opens(l, dynamic)
	inside(t, server, func(s *guise.Scope) {
		changed := s.Changed()
		client.become(roleBob)
		until(t, "the next entry has to follow", func() (got string, ok bool) {
			inside(t, server, func(*guise.Scope) { got = threadIDs() })
			return got, got == shows(roleBob)
		})
		is(t, "in the scope that can't follow", roleAlice)
		if !s.Token().SameIDs(roleAlice) {
			t.Errorf("Scope.Token is %s in a scope that can't follow", s.Token())
		}
		select {
		case <-changed:
			t.Errorf("Changed is closed in a scope that can't follow")
		default:
		}
	})
}

// breaksAfterTheScope has a client break the protocol while the server is in a scope that can't follow.
func breaksAfterTheScope(t testing.TB, l *guise.Listener) {
	client := play(t)
	client.become(roleAlice)
	near, server := client.opens(l, dynamic)
	inside(t, server, func(*guise.Scope) {
		// The library's own clients never do. So one sends bytes where it has the control channel: the descriptor before or after
		// the pipe's.
		breakChannel(near)
		until(t, "the next entry has to fail", func() (string, bool) {
			err := server.RunAsClient(func(*guise.Scope) error { return nil })
			return fmt.Sprint(err), errors.Is(err, guise.ErrContextLost)
		})
		is(t, "in the scope that can't follow", roleAlice)
	})
	if err := server.RunAsClient(func(*guise.Scope) error { return nil }); !errors.Is(err, guise.ErrContextLost) {
		t.Errorf("the next entry: %v", err)
	}
}

// breakChannel writes nonsense to all unnamed sequenced-packet sockets of this process: its clients' ends of control channels, and
// with them those of this connection.
func breakChannel(*guise.Conn) {
	for fd := 3; fd < 64; fd++ {
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil || kind != unix.SOCK_SEQPACKET {
			continue
		}
		unix.Sendmsg(fd, []byte("nonsense"), nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	}
}

func TestScopesFollowAtTheNextEntryWhereSignal34IsTaken(t *testing.T) {
	needRoot(t)
	plays(t, "signal 34 is taken", nil)
}

var _ = addRole("few ids", func() {
	t := roleT{}
	l, log := roleServer(guise.ListenConfig{})
	if !strings.Contains(log.String(), "next entry only") || !strings.Contains(log.String(), "4294967293") || !strings.Contains(log.String(), "ListenConfig.Nobody") {
		must(fmt.Errorf("Listen logs %q", log))
	}
	if guise.CanFollow(0) == nil {
		must(errors.New("CanFollow says that scopes can follow"))
	}
	followsAtTheNextEntry(t, l)
	breaksAfterTheScope(t, l)

	must(guise.CanFollow(61009))
	l, log = roleServer(guise.ListenConfig{Nobody: 61009})
	if log.Len() > 0 {
		must(fmt.Errorf("with a Nobody that is there Listen logs %q", log))
	}
	client := play(t)
	client.become(roleAlice)
	near, server := client.opens(l, dynamic)
	inside(t, server, func(*guise.Scope) {
		client.become(roleBob)
		becomes(t, "in a small user namespace, with a Nobody that is there,", roleBob)
		breakChannel(near)
		becomes(t, "after its client broke the protocol", must1(token.FromIDs(61009, 61009, nil)))
	})
	fmt.Println("all is well")
})

func TestScopesFollowAtTheNextEntryWhereNobodyIsNotThere(t *testing.T) {
	needRoot(t)
	some := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: 61000, HostID: 61000, Size: 10}}
	plays(t, "few ids", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: some, GidMappings: some, GidMappingsEnableSetgroups: true})
}

func TestNobodyHasToBeAnAccountThatIsWorn(t *testing.T) {
	for _, id := range []uint32{4294967295, 65534} {
		l, err := guise.Listen(filepath.Join(testdir.Open(t, 0o755), "pipe"), &guise.ListenConfig{Nobody: id})
		if err == nil || !strings.Contains(err.Error(), "Nobody") {
			t.Errorf("Listen with Nobody %d gives %v, want an error that names ListenConfig.Nobody", id, err)
		}
		if l != nil {
			l.Close()
		}
	}
}

// TestClientOutOfDescriptorsIsFollowedOnceItHasSome has a client change that can't make the socket that proves it.
func TestClientOutOfDescriptorsIsFollowedOnceItHasSome(t *testing.T) {
	needRoot(t)
	l := listenOn(t, nil)
	client := startClient(t, l)
	server := accept(t, l)
	before, after := identity(t, 61001, 61001, 61101), identity(t, 61002, 61001, 61101)
	inside(t, server, func(*guise.Scope) {
		client.tell("use up descriptors")
		client.tell("all threads 61002")
		stays(t, "while its client can't prove that it has changed", before)
		client.tell("let descriptors go")
		becomes(t, "once its client has descriptors again", after)
	})
	server.Close()
	client.end()
}
