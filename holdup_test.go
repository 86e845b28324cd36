package guise

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
)

// stuckHandler is a log that takes nothing until it is released.
type stuckHandler struct{ release chan struct{} }

func (h stuckHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h stuckHandler) Handle(context.Context, slog.Record) error {
	<-h.release
	return nil
}
func (h stuckHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h stuckHandler) WithGroup(string) slog.Handler      { return h }

// returns fails the test if f has not returned after some seconds.
func returns(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Errorf("%s has not returned after %v", what, patience)
	}
}

// becomesUID waits until the calling thread has an effective uid.
func becomesUID(t *testing.T, when string, want int) {
	t.Helper()
	for begun := time.Now(); unix.Geteuid() != want; runtime.Gosched() {
		if time.Since(begun) > patience {
			t.Errorf("%s the thread is uid %d, want %d", when, unix.Geteuid(), want)
			return
		}
	}
}

// TestLoggerThatIsStuckHoldsUpNobody: neither the caller who finds that a client broke the protocol, nor the clients of others.
func TestLoggerThatIsStuckHoldsUpNobody(t *testing.T) {
	needRoot(t, "the clients have ids of their own")
	h := stuckHandler{make(chan struct{})}
	defer close(h.release)
	stuck, other := listenAt(t, &ListenConfig{Logger: slog.New(h)}), listenAt(t, nil)
	bad, badServer := rawAlice(t, stuck)
	good, goodServer := rawAlice(t, other)
	err := goodServer.RunAsClient(func(*Scope) error {
		bad.say("garbage")
		returns(t, "Client", func() { badServer.Client() })
		returns(t, "Close", func() { badServer.Close() })
		good.say("garbage")
		becomesUID(t, "after another client broke the protocol too", nobodyOf(other))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func nobodyOf(l *Listener) int { return int(l.nobody.UID()) }

// TestWhatIsReadInAScopeIsItsWritersToo: the change was announced before the scope was entered, and waits for its place.
func TestWhatIsReadInAScopeIsItsWritersToo(t *testing.T) {
	needRoot(t, "the client changes its ids")
	l := listenAt(t, nil)
	var client *rawClient
	asAlice(func() {
		client = dialRaw(t, l)
		client.open()
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 61002, ^uintptr(0)); e != 0 {
			panic(e)
		}
		must(client.announce(1, client.token(), client.claim()))
		client.write("2")
	}()
	<-done
	server := acceptFrom(t, l)
	var b [8]byte
	if n, err := server.Read(b[:]); err != nil || string(b[:n]) != "1" {
		t.Fatalf("read %q, %v", b[:n], err)
	}
	err := server.RunAsClient(func(s *Scope) error {
		if got := unix.Geteuid(); got != 61001 {
			t.Errorf("what alice wrote is acted on as uid %d", got)
		}
		if n, err := server.Read(b[:]); err != nil || string(b[:n]) != "2" {
			t.Errorf("read %q, %v", b[:n], err)
		}
		becomesUID(t, "once what was written under another context has been read in the scope,", 61002)
		if got := s.Token().UID(); got != 61002 {
			t.Errorf("the scope's token is of uid %d", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestClientWhoseConnectionIsBusyHoldsUpNobodyElse: the thread that follows does not wait for who is at a connection.
func TestClientWhoseConnectionIsBusyHoldsUpNobodyElse(t *testing.T) {
	needRoot(t, "the clients have ids of their own")
	l := listenAt(t, nil)
	bad, badServer := rawAlice(t, l)
	good, goodServer := rawAlice(t, l)
	badServer.server.mu.Lock()
	defer badServer.server.mu.Unlock()
	bad.say("garbage")
	err := goodServer.RunAsClient(func(*Scope) error {
		good.say("garbage")
		becomesUID(t, "while somebody is at another connection that has something to be heard,", nobodyOf(l))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestNotAllThatAClientAnnouncesIsTakenInAtOnce: one that announces without end would keep its server's caller, and the lock.
func TestNotAllThatAClientAnnouncesIsTakenInAtOnce(t *testing.T) {
	needRoot(t, "the client has ids of its own")
	client, server := rawAlice(t, listenAt(t, nil))
	s := server.server
	s.mu.Lock()
	defer s.mu.Unlock()
	const more = atOnce + 20
	asAlice(func() {
		socket, claim := client.token(), client.claim()
		for i := range uint64(more) {
			must(client.sayAs(claim, rawNow(i+1, 0), socket))
		}
	})
	for _, want := range []uint64{atOnce, more} {
		if err := s.takeOff(server); err != nil {
			t.Fatal(err)
		}
		if got := s.known.following.current.Sequence; got != want {
			t.Errorf("%d announcements have been taken in, want %d", got, want)
		}
	}
}

// TestChildThatHasBeenWaitedForIsNotSignalled: its number may be another's by then.
func TestChildThatHasBeenWaitedForIsNotSignalled(t *testing.T) {
	cmd := exec.Command("/bin/sleep", "60")
	must(cmd.Start())
	fd, err := openChild(cmd.Process.Pid)
	if err != nil {
		t.Fatalf("a child that runs: %v", err)
	}
	defer unix.Close(fd)
	must(cmd.Process.Kill())
	cmd.Wait()
	// This process's own number is sure to be in use, and by no child.
	for _, pid := range []int{cmd.Process.Pid, os.Getpid()} {
		if fd, err := openChild(pid); err != os.ErrProcessDone {
			t.Errorf("openChild of %d = %d, %v, want os.ErrProcessDone", pid, fd, err)
		}
	}
}

func TestCloseDoesNotWaitForWhatAServerPutOnTheControlChannel(t *testing.T) {
	fd, release := lingering(t)
	defer release()
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	l := must1(net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}))
	defer l.Close()
	client := must1(Dial(path, &QoS{Tracking: Dynamic}))
	server := must1(l.AcceptUnix())
	defer server.Close()
	control := make([]byte, 64)
	_, n, _, _, err := server.ReadMsgUnix(make([]byte, 1), control)
	must(err)
	messages := must1(unix.ParseSocketControlMessage(control[:n]))
	channel := must1(unix.ParseUnixRights(&messages[0]))[0]
	defer unix.Close(channel)
	must(unix.Sendmsg(channel, []byte("x"), unix.UnixRights(fd), nil, 0))
	unix.Close(fd)
	returns(t, "Close", func() { client.Close() })
}
