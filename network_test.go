package guise_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// recordedUID is alice's uid, gid and first group in what Samba was recorded to say of her.
const recordedUID = 1001

// told returns what smbd was recorded to say of a client, with another uid, gid and first group if uid is not recordedUID.
func told(t testing.TB, sample string, uid uint64) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("internal/npa/testdata", sample+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	number := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	if uid != recordedUID && bytes.Count(b, number(recordedUID)) != 3 {
		t.Fatalf("%s has uid %d in it %d times, want 3", sample, recordedUID, bytes.Count(b, number(recordedUID)))
	}
	return bytes.ReplaceAll(b, number(recordedUID), number(uid))
}

// published listens on a pipe that is published to Samba, and returns the path that smbd would connect to.
func published(t testing.TB, config guise.ListenConfig) (*guise.Listener, string) {
	t.Helper()
	network := guise.Network{}
	if config.Network != nil {
		network = *config.Network
	}
	network.Name = "Spool"
	if network.Path == "" {
		network.Dir = filepath.Join(testdir.Open(t, 0o755), "ncalrpc", "np")
	}
	config.Network = &network
	l := listenOn(t, &config)
	if network.Path != "" {
		return l, network.Path
	}
	return l, filepath.Join(network.Dir, "spool")
}

// smbd is one connection of Samba's to a daemon.
type smbd struct {
	*net.UnixConn
	t testing.TB
}

func connectAsSamba(t testing.TB, path string) *smbd {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("smbd can't connect to the pipe: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(4 * patience))
	return &smbd{c.(*net.UnixConn), t}
}

// tells sends what there is to be said of a client. A daemon that refuses before it has heard all is no error.
func (s *smbd) tells(b []byte) {
	s.t.Helper()
	if _, err := s.Write(b); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		s.t.Fatalf("smbd telling of its client: %v", err)
	}
}

// hears returns the type of the pipe that the daemon answers with, 0 if it closes without an answer.
func (s *smbd) hears() (kind uint16) {
	s.t.Helper()
	reply := make([]byte, 36)
	n, err := io.ReadFull(s, reply)
	switch {
	case n == 0 && (err == io.EOF || errors.Is(err, unix.ECONNRESET)):
		return 0
	case err != nil:
		s.t.Fatalf("smbd reads %d bytes of the reply: %v", n, err)
	}
	return binary.LittleEndian.Uint16(reply[16:])
}

// open has smbd open the pipe for a client, who is let in.
func open(t testing.TB, path string, request []byte) *smbd {
	t.Helper()
	s := connectAsSamba(t, path)
	s.tells(request)
	if s.hears() == 0 {
		t.Fatal("the daemon refuses a client that it is to let in")
	}
	return s
}

func TestClientOfAnotherMachine(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		sample, domain, client string
		encrypted              bool
	}{
		{"level7-ntlm", "MACHINE1", "127.0.0.1:50740", false},
		{"level7-kerberos", "TEST", "127.0.0.1:50776", false},
		{"level7-ntlm-ipv6", "MACHINE1", "[::1]:44240", false},
		{"level7-encryption-required", "MACHINE1", "127.0.0.1:50802", true},
		{"level8-ntlm", "MACHINE1", "127.0.0.1:50878", false},
		{"level8-encrypted-aes256", "MACHINE1", "127.0.0.1:50916", true},
	} {
		for _, message := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, message %v", test.sample, message), func(t *testing.T) {
				asked := make(chan string, 1)
				l, path := published(t, guise.ListenConfig{
					Message: message, Tracking: guise.Dynamic, Level: guise.Impersonation,
					Allow: func(c *token.Token) error { asked <- c.String(); return nil },
				})
				open(t, path, told(t, test.sample, 61001))
				c := acceptUnread(t, l)
				if err := c.WaitClient(t.Context()); err != nil {
					t.Errorf("WaitClient: %v", err)
				}
				who, err := c.Client()
				if err != nil {
					t.Fatalf("Client before anything was read: %v", err)
				}
				if got := <-asked; got != who.String() {
					t.Errorf("Allow was asked about %s, and the client is %s", got, who)
				}
				if got, want := shows(who), "61001 61001 2001,2002,61001,70000"; got != want {
					t.Errorf("the client is %s, want %s", got, want)
				}
				origin, network := who.Origin()
				if !network || origin.Account != "alice" || origin.Domain != test.domain || origin.Encrypted != test.encrypted ||
					origin.Client != netip.MustParseAddrPort(test.client) || len(origin.SIDs) != 10 || !strings.HasPrefix(origin.SIDs[0], "S-1-5-21-") {
					t.Errorf("the client is from %+v, %v", origin, network)
				}
				if got := c.RemoteAddr(); got.Network() != "tcp" || got.String() != test.client {
					t.Errorf("RemoteAddr is %v, want %s", got, test.client)
				}
				if got, want := c.QoS(), (guise.QoS{Level: guise.Impersonation, Tracking: guise.Static}); got != want {
					t.Errorf("the quality of service is %+v, want %+v whatever the listener prefers", got, want)
				}
				for name, peer := range map[string]func() (*token.Token, error){
					"Peer": c.Peer, "token.Of": func() (*token.Token, error) { return token.Of(c) },
				} {
					if p, err := peer(); err != nil || !p.Equal(who) {
						t.Errorf("%s: %v, %v; it must not be smbd", name, p, err)
					}
				}
				inside(t, c, func(*guise.Scope) { is(t, "in the scope", who) })
				if got := created(t, c); got != 61001 {
					t.Errorf("a file that is made in the scope belongs to %d", got)
				}
				if err := c.Freeze(); err != nil {
					t.Errorf("Freeze: %v", err)
				}
			})
		}
	}
}

// created returns the owner of a file that is made in a scope of the connection's client.
func created(t testing.TB, c *guise.Conn) (uid uint32) {
	t.Helper()
	path := filepath.Join(testdir.Open(t, 0o777), "made")
	inside(t, c, func(*guise.Scope) {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Error(err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid
}

func TestOneAcceptLoopServesBothKinds(t *testing.T) {
	needRoot(t)
	l, path := published(t, guise.ListenConfig{})
	var wait sync.WaitGroup
	defer wait.Wait()
	const each = 20
	for i := range each {
		wait.Go(func() {
			s := connectAsSamba(t, path)
			s.tells(told(t, "level7-ntlm", 61001+uint64(i)))
			if s.hears() != 1 {
				t.Error("the daemon does not answer as a pipe of bytes")
			}
			s.Write([]byte("x"))
			s.Read(make([]byte, 1)) // the end
		})
		wait.Go(func() {
			near, err := guise.Dial(l.Addr().String(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer near.Close()
			near.Write([]byte("x"))
			near.Read(make([]byte, 1))
		})
	}
	seen := map[uint32]int{}
	for range 2 * each {
		c := accept(t, l)
		who, err := c.Client()
		if err != nil {
			t.Fatal(err)
		}
		if _, network := who.Origin(); network != (who.UID() != 0) {
			t.Errorf("%v comes over the network: %v", who, network)
		}
		seen[who.UID()]++
		c.Close()
	}
	for i := range uint32(each) {
		if seen[61001+i] != 1 {
			t.Errorf("the client of uid %d came %d times", 61001+i, seen[61001+i])
		}
	}
	if seen[0] != each {
		t.Errorf("%d of %d clients of this machine came", seen[0], each)
	}
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func TestClientOfAnotherMachineIsTurnedAway(t *testing.T) {
	needRoot(t)
	ntlm := told(t, "level7-ntlm", 61001)
	level := func(n byte) []byte {
		b := bytes.Clone(ntlm)
		b[8], b[12] = n, n
		return b
	}
	for _, test := range []struct {
		name    string
		config  guise.ListenConfig
		request []byte
		says    string
	}{
		{"guest", guise.ListenConfig{}, told(t, "level7-guest", recordedUID), "not authenticated"},
		{"anonymous", guise.ListenConfig{}, told(t, "level7-anonymous", recordedUID), "not authenticated"},
		{"guest of Samba 4.22", guise.ListenConfig{}, told(t, "level8-guest", recordedUID), "not authenticated"},
		{"guest where the pipe takes impersonation", guise.ListenConfig{Network: &guise.Network{Guests: true}, Level: guise.Impersonation},
			told(t, "level7-guest", recordedUID), "takes impersonation"},
		{"pipe that takes delegation", guise.ListenConfig{Level: guise.Delegation}, ntlm, "takes delegation"},
		{"not allowed", guise.ListenConfig{Allow: notFromNetwork}, ntlm, "not this one"},
		{"level 4", guise.ListenConfig{}, level(4), "level 4"},
		{"level 9", guise.ListenConfig{}, level(9), "level 9"},
		{"the uid that is none", guise.ListenConfig{}, told(t, "level7-ntlm", 1<<32-1), "no id"},
		{"a uid of 33 bits", guise.ListenConfig{}, told(t, "level7-ntlm", 1<<32), "32 bits"},
		{"something else", guise.ListenConfig{}, []byte("\x00\x00\x00\x20GET / HTTP/1.0\r\n\r\n0123456789abcdef"), "magic"},
		{"too long", guise.ListenConfig{}, []byte("\xff\xff\xff\xffNPAM"), "length"},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := new(lines)
			test.config.Logger = log.logger()
			l, path := published(t, test.config)
			s := connectAsSamba(t, path)
			s.tells(test.request)
			if kind := s.hears(); kind != 0 {
				t.Errorf("the daemon answers with a pipe of type %d", kind)
			}
			until(t, "the log says why", func() (string, bool) { return log.String(), strings.Contains(log.String(), test.says) })
			comesNext(t, l)
		})
	}
}

func notFromNetwork(t *token.Token) error {
	if _, network := t.Origin(); network {
		return errors.New("not this one")
	}
	return nil
}

// comesNext checks that the next client that is accepted is one of this machine: nobody has come before.
func comesNext(t testing.TB, l *guise.Listener) {
	t.Helper()
	near, err := guise.Dial(l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	writes(t, near)
	if p, err := acceptUnread(t, l).Peer(); err != nil || p.UID() != 0 || p.Source().Kind != token.FromPeer {
		t.Errorf("somebody else was accepted: %v, %v", p, err)
	}
}

func TestGuestsCanBeIdentifiedAndNotActedFor(t *testing.T) {
	needRoot(t)
	for _, sample := range []string{"level7-guest", "level7-anonymous", "level8-guest", "level8-anonymous"} {
		t.Run(sample, func(t *testing.T) {
			l, path := published(t, guise.ListenConfig{Network: &guise.Network{Guests: true}})
			open(t, path, told(t, sample, recordedUID))
			c := acceptUnread(t, l)
			who, err := c.Client()
			if err != nil || who.Level() != guise.Identification || c.QoS().Level != guise.Identification {
				t.Fatalf("Client = %v, %v, and the quality of service %+v; want level identification", who, err, c.QoS())
			}
			run := func(*guise.Scope) error { t.Error("a function ran as a guest"); return nil }
			if err := c.RunAsClient(run); err == nil {
				t.Error("RunAsClient works for a guest")
			}
			if err := guise.RunAs(who.Restrict(token.Statement{Level: guise.Impersonation, Capabilities: token.AllCapabilities}), run); err == nil {
				t.Error("RunAs works for a guest")
			}
		})
	}
	// One whose id could be worn.
	guest, err := token.OverNetwork(61001, 61001, nil, token.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	guest = guest.Restrict(token.Statement{Level: guise.Identification, Capabilities: token.AllCapabilities})
	if err := guise.RunAs(guest, func(*guise.Scope) error { return nil }); !errors.Is(err, guise.ErrLevel) {
		t.Errorf("RunAs of a guest with an id of its own: %v, want ErrLevel", err)
	}
}

func TestOnlyRootTellsOfClients(t *testing.T) {
	needRoot(t)
	log := new(lines)
	path := filepath.Join(testdir.Open(t, 0o755), "network")
	l, _ := published(t, guise.ListenConfig{Network: &guise.Network{Path: path}, Logger: log.logger()})
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&0o777 != 0o600 {
		t.Errorf("smbd's socket has mode %o, %v, want 600", st.Mode&0o777, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	p := play(t)
	p.become(identity(t, 61002, 61002))
	var s *smbd
	p.do(func() { s = connectAsSamba(t, path) })
	s.tells(told(t, "level7-ntlm", 61001))
	if s.hears() != 0 {
		t.Error("an ordinary user may say who somebody is")
	}
	until(t, "the log says why", func() (string, bool) {
		return log.String(), strings.Contains(log.String(), "uid 61002") && strings.Contains(log.String(), "only root")
	})
	comesNext(t, l)
}

func TestRootOfAnotherMachineIsNotWorn(t *testing.T) {
	needRoot(t)
	for _, allowed := range []bool{false, true} {
		t.Run(fmt.Sprintf("allowed: %v", allowed), func(t *testing.T) {
			l, path := published(t, guise.ListenConfig{AllowForeignRoot: allowed})
			open(t, path, told(t, "level7-ntlm", 0))
			c := acceptUnread(t, l)
			if who, err := c.Client(); err != nil || who.UID() != 0 {
				t.Errorf("Client = %v, %v", who, err)
			}
			ran := false
			err := c.RunAsClient(func(*guise.Scope) error { ran = true; return nil })
			if allowed && (err != nil || !ran) || !allowed && (!errors.Is(err, guise.ErrNotWearable) || ran) {
				t.Errorf("RunAsClient: %v, and the function ran: %v", err, ran)
			}
		})
	}
}

func TestSambaLooksWhetherSomebodyIsThere(t *testing.T) {
	needRoot(t)
	b := told(t, "level7-ntlm", 61001)
	// The flags are the last number of one of Samba's marks.
	mark := binary.LittleEndian.AppendUint32(nil, 2041152804)
	i := bytes.Index(b, mark)
	if i < 0 {
		t.Fatal("the sample has no flags of Samba's in it")
	}
	b[i+4] |= 4
	l, path := published(t, guise.ListenConfig{})
	s := connectAsSamba(t, path)
	s.tells(b)
	if s.hears() != 1 {
		t.Error("the daemon does not answer")
	}
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the reply smbd reads %d bytes, %v, want the end", n, err)
	}
	comesNext(t, l)
}

// TestSlowHandshakesHoldNobodyUp has connections of smbd's that say nothing, or half of what they have to.
func TestSlowHandshakesHoldNobodyUp(t *testing.T) {
	needRoot(t)
	l, path := published(t, guise.ListenConfig{})
	request := told(t, "level7-ntlm", 61001)
	var stuck []*smbd
	for i := range 50 {
		s := connectAsSamba(t, path)
		s.tells(request[:i*len(request)/50])
		stuck = append(stuck, s)
	}
	open(t, path, request)
	if who, err := acceptUnread(t, l).Client(); err != nil || who.UID() != 61001 {
		t.Errorf("Client = %v, %v", who, err)
	}
	comesNext(t, l)
	l.Close()
	for _, s := range stuck {
		s.SetDeadline(time.Now().Add(guise.HandshakeTime() / 2)) // or what ends them may be that
		if s.hears() != 0 {
			t.Error("half a handshake is answered when the listener closes")
		}
	}
	if _, err := l.AcceptPipe(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("AcceptPipe of a closed listener: %v", err)
	}
}

// TestClientsThatNobodyAccepted are let go when the listener closes.
func TestClientsThatNobodyAccepted(t *testing.T) {
	needRoot(t)
	l, path := published(t, guise.ListenConfig{Watch: true})
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // or the collector may close them
	var clients []*smbd
	for range 5 {
		clients = append(clients, open(t, path, told(t, "level7-ntlm", 61001)))
	}
	near, err := guise.Dial(l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	l.Close()
	for _, s := range clients {
		if n, err := s.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("a client of a closed listener reads %d bytes, %v", n, err)
		}
	}
	near.SetReadDeadline(time.Now().Add(4 * patience))
	if n, err := near.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a client of this machine's reads %d bytes, %v", n, err)
	}
}

func TestPublishing(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := testdir.Open(t, 0o755)
	np := filepath.Join(dir, "ncalrpc", "np")
	pipe := filepath.Join(dir, "pipe")
	writable := testdir.Open(t, 0o777)
	foreign := filepath.Join(dir, "file")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		network guise.Network
		says    string
	}{
		{"no name on the network", guise.Network{Dir: np}, "Network.Name"},
		{"a path as the name", guise.Network{Dir: np, Name: "/x/y"}, "Network.Name"},
		{"a bad name", guise.Network{Dir: np, Name: "a b"}, "letters, digits"},
		{"another machine's name", guise.Network{Dir: np, Name: `\\host\pipe\x`}, "smb.Dial"},
		{"a directory of another mode", guise.Network{Dir: dir, Name: "x"}, "has mode 0755"},
		{"a directory that can't be made", guise.Network{Dir: filepath.Join(foreign, "x", "np"), Name: "x"}, "is no directory"},
		{"a directory in one that others can write to", guise.Network{Dir: filepath.Join(writable, "np"), Name: "x"}, "others can write"},
		{"a path in a directory that others can write to", guise.Network{Path: filepath.Join(writable, "x"), Name: "x"}, "others can write"},
		{"a path and a directory", guise.Network{Path: filepath.Join(dir, "x"), Dir: np, Name: "x"}, "Network.Dir"},
		{"a file in the way", guise.Network{Path: foreign, Name: "x"}, "is no socket"},
		{"a path that is too long", guise.Network{Dir: filepath.Join(np, strings.Repeat("d", 100)), Name: "x"}, "bytes long"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := guise.Listen(pipe, &guise.ListenConfig{Network: &test.network})
			if err == nil {
				l.Close()
				t.Fatal("it listens")
			}
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("the error is %q, which does not say %q", err, test.says)
			}
			if _, err := os.Lstat(pipe); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the pipe's own socket is left behind: %v", err)
			}
		})
	}

	old := unix.Umask(0o077)
	first, err := guise.Listen(pipe, &guise.ListenConfig{Network: &guise.Network{Dir: np, Name: "Spool"}})
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	for path, want := range map[string]uint32{np: 0o700} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Mode&0o777 != want || st.Uid != 0 {
			t.Errorf("%s has mode %o and is of uid %d, %v; want %o", path, st.Mode&0o777, st.Uid, err, want)
		}
	}
	if _, err := guise.Listen(pipe+"2", &guise.ListenConfig{Network: &guise.Network{Dir: np, Name: "spool"}}); !errors.Is(err, guise.ErrPipeTaken) {
		t.Errorf("a second server publishes the same pipe: %v", err)
	}
	if _, err := os.Lstat(pipe + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its own socket is left behind: %v", err)
	}
	first.Close()
	if left, _ := os.ReadDir(np); len(left) != 0 {
		t.Errorf("%v is left in Samba's directory", left)
	}
	// A server that died leaves its socket behind.
	dead, err := net.Listen("unix", filepath.Join(np, "spool"))
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	again, err := guise.Listen(pipe, &guise.ListenConfig{Network: &guise.Network{Dir: np, Name: "spool"}})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// TestListenersThatOthersMadeCanBePublished, too.
func TestListenersThatOthersMadeCanBePublished(t *testing.T) {
	needRoot(t)
	dir := testdir.Open(t, 0o755)
	inner, err := net.Listen("unix", filepath.Join(dir, "pipe"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guise.ListenOn(inner, &guise.ListenConfig{Network: &guise.Network{Dir: filepath.Join(dir, "np")}}); err == nil || !strings.Contains(err.Error(), "Network.Name") {
		t.Errorf("without a name on the network: %v", err)
	}
	l, err := guise.ListenOn(inner, &guise.ListenConfig{Network: &guise.Network{Dir: filepath.Join(dir, "np"), Name: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	open(t, filepath.Join(dir, "np", "x"), told(t, "level8-ntlm", 61001))
	if who, err := acceptUnread(t, l).Client(); err != nil || who.UID() != 61001 {
		t.Errorf("Client = %v, %v", who, err)
	}
	comesNext(t, l)
}

// TestChainFromAnotherMachine: B serves a client of another machine, and C serves B on this one.
func TestChainFromAnotherMachine(t *testing.T) {
	needRoot(t)
	for _, tracking := range []guise.Tracking{guise.Static, guise.Dynamic} {
		t.Run(tracking.String(), func(t *testing.T) {
			lb, path := published(t, guise.ListenConfig{})
			lc := listenOn(t, nil)
			open(t, path, told(t, "level7-ntlm", 61001))
			b := acceptUnread(t, lb)
			who, err := b.Client()
			if err != nil {
				t.Fatal(err)
			}
			want, _ := who.Origin()
			var near, c *guise.Conn
			inside(t, b, func(*guise.Scope) {
				if near, err = guise.Dial(lc.Addr().String(), &guise.QoS{Tracking: tracking}); err != nil {
					t.Error(err)
					return
				}
				writes(t, near)
				c = accept(t, lc)
			})
			if c == nil {
				return
			}
			defer near.Close()
			comesFrom(t, "at C", c, &want)
			inside(t, c, func(*guise.Scope) {
				wearing, err := guise.Wearing()
				if _, network := wearing.Origin(); err != nil || !network {
					t.Errorf("in C's scope the thread wears %v, %v", wearing, err)
				}
			})
			writes(t, near)
			reads(t, c)
			if tracking == guise.Static {
				comesFrom(t, "after B has left its scope", c, &want)
			} else {
				comesFrom(t, "after B has left its scope", c, nil)
			}
		})
	}
}

func TestWatchShowsWhereClientsAreFrom(t *testing.T) {
	needRoot(t)
	l, path := published(t, guise.ListenConfig{Watch: true})
	var opened *smbd
	var kinds []guise.WatchKind
	for e, err := range guise.Watch(t.Context(), l.Addr().String()) {
		if err != nil {
			t.Fatal(err)
		}
		if opened == nil {
			opened = open(t, path, told(t, "level7-ntlm", 61001))
			acceptUnread(t, l)
		}
		c := e.Connection
		if c == nil {
			continue
		}
		kinds = append(kinds, e.Kind)
		if c.Client.UID != 61001 || !strings.Contains(c.Client.Origin, `MACHINE1\alice on 127.0.0.1`) || c.PID != 0 || c.Program != "" || c.Tracking != guise.Static {
			t.Errorf("a watcher sees %+v", c)
		}
		if len(kinds) == 2 {
			break
		}
	}
	if want := []guise.WatchKind{guise.WatchOpened, guise.WatchKnown}; !slices.Equal(kinds, want) {
		t.Errorf("a watcher is told %v, want %v", kinds, want)
	}
}

func TestHandshakeThatDoesNotEndIsEnded(t *testing.T) {
	needRoot(t)
	defer guise.SetHandshakeTime(50 * time.Millisecond)()
	log := new(lines)
	l, path := published(t, guise.ListenConfig{Logger: log.logger()})
	s := connectAsSamba(t, path)
	s.tells(told(t, "level7-ntlm", 61001)[:100])
	if s.hears() != 0 {
		t.Error("half a handshake is answered")
	}
	until(t, "the log says why", func() (string, bool) { return log.String(), strings.Contains(log.String(), "timeout") })
	// The time is for the handshake alone.
	s = open(t, path, told(t, "level7-ntlm", 61001))
	c := acceptUnread(t, l)
	time.AfterFunc(200*time.Millisecond, func() { s.Write([]byte("x")) })
	reads(t, c)
}

func TestAllowIsAskedOnceAtATime(t *testing.T) {
	needRoot(t)
	const each = 10
	var asking, asked atomic.Int32
	l, path := published(t, guise.ListenConfig{Allow: func(*token.Token) error {
		if asking.Add(1) > 1 {
			t.Error("Allow is asked while it is asked")
		}
		for range 100 {
			runtime.Gosched()
		}
		asking.Add(-1)
		asked.Add(1)
		return nil
	}})
	var wait sync.WaitGroup
	defer wait.Wait()
	for range each {
		wait.Go(func() { open(t, path, told(t, "level7-ntlm", 61001)) })
		wait.Go(func() {
			if near, err := guise.Dial(l.Addr().String(), nil); err != nil {
				t.Error(err)
			} else {
				t.Cleanup(func() { near.Close() })
			}
		})
	}
	for range 2 * each {
		acceptUnread(t, l)
	}
	if asked.Load() != 2*each {
		t.Errorf("Allow was asked %d times about %d clients", asked.Load(), 2*each)
	}
}

// TestAcceptedConnectionOutlivesItsListener, however close the two are.
func TestAcceptedConnectionOutlivesItsListener(t *testing.T) {
	needRoot(t)
	request := told(t, "level7-ntlm", 61001)
	for range 100 {
		l, path := published(t, guise.ListenConfig{})
		s := connectAsSamba(t, path)
		s.tells(request)
		c := acceptUnread(t, l)
		l.Close()
		if s.hears() == 0 {
			t.Fatal("a client that was accepted is turned away")
		}
		s.Write([]byte("x"))
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("reading after the listener was closed: %v", err)
		}
		c.Close()
		s.Close()
	}
}

// TestOneMachinesClientsLeaveRoomForOthers where nobody accepts.
func TestOneMachinesClientsLeaveRoomForOthers(t *testing.T) {
	needRoot(t)
	log := new(lines)
	l, path := published(t, guise.ListenConfig{Logger: log.logger()})
	request := told(t, "level7-ntlm", 61001)
	crowd := make([]*smbd, guise.MostWaitingOne)
	for i := range crowd {
		crowd[i] = open(t, path, request)
	}
	s := connectAsSamba(t, path)
	s.tells(request)
	if s.hears() != 0 {
		t.Error("more clients of one machine wait than may")
	}
	until(t, "the log says why", func() (string, bool) { return log.String(), strings.Contains(log.String(), "nobody accepts") })
	open(t, path, told(t, "level7-ntlm-ipv6", 61002))
	other := false
	for range len(crowd) + 1 {
		who, err := acceptUnread(t, l).Client()
		if err != nil {
			t.Fatal(err)
		}
		other = other || who.UID() == 61002
	}
	if !other {
		t.Error("another machine's client did not come")
	}
	open(t, path, request)
	acceptUnread(t, l)
}
