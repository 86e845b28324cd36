package guise

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/quota"
	"github.com/guise-project/guise/token"
)

// hanging is how long is waited for what takes no time on an idle machine.
const hanging = 10 * patience

// manyTokens returns tokens of so many groups each, which share nothing.
func manyTokens(n, groups int) []*token.Token {
	all := make([]*token.Token, n)
	for i := range all {
		list := make([]uint32, groups)
		for j := range list {
			list[j] = 100000 + uint32(i*groups+j)
		}
		all[i] = must1(token.FromIDs(61001, 61001, list))
	}
	return all
}

// newBacklog returns what a connection of a user's is at first, in as far as it keeps announcements, with a context of source 0.
func newBacklog(t *testing.T, user quota.User) *following {
	t.Helper()
	opened := &announce.Announced{}
	f := &following{user: user, placed: opened, current: opened, sources: map[uint64]*heard{0: {counts: 2}}}
	before := keptOfUsers.of(user)
	t.Cleanup(func() { // of the last first
		f.forget()
		if after := keptOfUsers.of(user); f.kept != 0 || before == 0 && after != 0 {
			t.Errorf("after all was let go, %d bytes are counted for the connection, and %d for its user", f.kept, after)
		}
	})
	return f
}

// counted fails the test unless a connection, and its user who has no other, keep about so many long lists of groups.
func counted(t *testing.T, when string, f *following, lists, groups int) {
	t.Helper()
	if got := f.kept / (4 * groups); got != lists {
		t.Errorf("%s %d bytes are counted, want those of %d lists of %d groups", when, f.kept, lists, groups)
	}
	if got := keptOfUsers.of(f.user); got != f.kept {
		t.Errorf("%s %d bytes are counted for the user, and %d for the only connection", when, got, f.kept)
	}
}

func TestWhatIsKeptForLaterIsCountedUntilItIsUsed(t *testing.T) {
	const user, groups = 61901, 10000
	tokens := manyTokens(6, groups)
	f := newBacklog(t, user)
	at := func(n int, source, place uint64) {
		f.wait(&announce.Announced{Token: tokens[n], Sequence: uint64(n), Source: source, At: place})
	}
	now := func(n int, source uint64) {
		f.takeBetween(&announce.Announced{Token: tokens[n], Sequence: uint64(n), Source: source, Now: true})
	}
	at(0, 1, 5)
	at(1, 2, 7)
	counted(t, "with two that wait", f, 2, groups)
	at(1, 2, 8)
	counted(t, "with another that has the groups of the one before", f, 2, groups)
	now(2, 2)
	counted(t, "with one between writes", f, 3, groups)
	now(3, 2)
	counted(t, "with another of the same source in its place", f, 3, groups)
	now(4, 9)
	counted(t, "after one of a source for which nothing is acted on", f, 3, groups)
	f.takeBetween(&announce.Announced{Sequence: 5, Source: 9, Now: true}) // lost
	f.at = 5
	f.reach()
	counted(t, "when the first place was reached", f, 2, groups)
	now(5, 1)
	counted(t, "with one between writes of who wrote what was read last", f, 3, groups)
	if a := f.since(f.placed); a.Token != tokens[5] {
		t.Error("what who wrote has announced since is not found")
	}
	f.at = 7
	f.reach()
	// What waits still has shared its groups with what was read: nothing else may be counted for them.
	counted(t, "when somebody else's place was reached", f, 1, groups)
	if a := f.since(f.placed); a.Token != tokens[3] {
		t.Error("what the next who wrote has announced between writes is not found")
	}
}

func TestEachConnectionAndEachUserMayKeepSoManyBytes(t *testing.T) {
	const user, other, groups = 61902, 61903, mostGroups
	tokens := manyTokens(2, groups)
	fill := func(f *following) (n int) {
		for ; f.room(); n++ {
			f.wait(&announce.Announced{Token: tokens[n%2], Sequence: uint64(n), At: uint64(n + 1)})
		}
		return n
	}
	const mib = 1 << 20
	var full []*following
	for range 40 {
		f := newBacklog(t, user)
		fill(f)
		if f.kept > 2*mib {
			t.Fatalf("a connection keeps %d bytes, want little more than 1 MiB", f.kept)
		}
		full = append(full, f)
	}
	if kept := keptOfUsers.of(user); kept < 15*mib || kept > 32*mib {
		t.Errorf("the connections of a user keep %d bytes, want 16 MiB and one announcement for each connection", kept)
	}
	if n := fill(newBacklog(t, other)); n < 3 {
		t.Errorf("when one user keeps all it may, another's connection takes %d announcements of %d groups", n, groups)
	}
	changed := newBacklog(t, user)
	changed.takeBetween(&announce.Announced{Token: tokens[0], Sequence: 1, Now: true})
	if !changed.room() {
		t.Error("a connection on which nothing waits takes nothing, because of its user's others and what came between writes: its reader would not get on")
	}
	small := newBacklog(t, user)
	short := must1(token.FromIDs(61001, 61001, []uint32{1, 2, 3}))
	for n := range 5 {
		if !small.room() {
			t.Fatalf("because of its user's others a connection takes no more than %d announcements of few groups", n)
		}
		small.wait(&announce.Announced{Token: short, Sequence: uint64(n), At: uint64(n + 1)})
	}
	f := full[0]
	f.at = 1
	f.reach()
	if f.room() {
		t.Error("a connection that has read to the first place takes more, though its user keeps as much as before")
	}
	f.at = 1 << 20
	f.reach()
	if !f.room() {
		t.Error("a connection that has read all it kept takes nothing")
	}
}

// announcesAlice has alice announce n contexts of her own, of places from first on, or between writes if that is 0, on a goroutine of its
// own. It counts how many it could send.
func announcesAlice(t *testing.T, client *rawClient, n int, first uint64) (sent *atomic.Int64) {
	return announcesAs(t, client, aliceToken(), n, first)
}

// announcesAs is announcesAlice for one who may have other groups.
func announcesAs(t *testing.T, client *rawClient, who *token.Token, n int, first uint64) (sent *atomic.Int64) {
	sent = new(atomic.Int64)
	near := must1(unix.FcntlInt(uintptr(client.near), unix.F_DUPFD_CLOEXEC, 0))
	speaker := &rawClient{pipe: -1, near: near, far: -1}
	ready, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		unix.Shutdown(near, unix.SHUT_RDWR)
		<-done
		speaker.close()
	})
	announce := func() {
		defer close(done)
		socket, claim := speaker.token(), speaker.claim()
		close(ready)
		for i := range uint64(n) {
			message := rawNow(i+1, 0)
			if first > 0 {
				message = rawContext(0, i+1, first+i)
			}
			err := speaker.sayAs(claim, message, socket)
			for ; err == unix.ETOOMANYREFS || err == unix.EINTR; err = speaker.sayAs(claim, message, socket) {
				time.Sleep(time.Millisecond) // this user has as many descriptors under way as may be, perhaps other tests'
			}
			if err != nil {
				return // the test has ended
			}
			sent.Add(1)
		}
	}
	go func() { must(RunAs(who, func(*Scope) error { announce(); return nil })) }()
	<-ready
	return sent
}

// TestServerTakesAtMost512AnnouncementsBeforeTheirPlace: docs/following.md says so.
func TestServerTakesAtMost512AnnouncementsBeforeTheirPlace(t *testing.T) {
	needRoot(t, "the client has ids of its own")
	client, server := rawAlice(t, listenAt(t, nil))
	const more, want = 600, 512 // the kernel has room for the rest
	sent := announcesAlice(t, client, more, 1000)
	s := server.server
	takeOff := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.takeOff(server); err != nil {
			t.Fatal(err)
		}
		return len(s.known.following.waiting)
	}
	for begun := time.Now(); sent.Load() < more; time.Sleep(time.Millisecond) {
		if takeOff(); time.Since(begun) > hanging {
			t.Fatalf("the client could send %d announcements of %d", sent.Load(), more)
		}
	}
	for range 8 {
		takeOff()
	}
	if got := takeOff(); got != want {
		t.Errorf("%d announcements wait, want %d", got, want)
	}
}

// TestClientThatChangesWithoutEndIsHeardSoOften: docs/following.md says how often. On a busy machine it takes longer.
func TestClientThatChangesWithoutEndIsHeardSoOften(t *testing.T) {
	needRoot(t, "the client has ids of its own")
	for _, test := range []struct {
		name    string
		who     *token.Token
		changes int
		least   time.Duration
	}{
		{"8 times in 10 ms", aliceToken(), 400, (400/8 - 2) * 10 * time.Millisecond},
		{"less often with many groups", manyTokens(1, mostGroups)[0], 8, (8 - 2) * 4 * mostGroups / (2 << 10) / 8 * 10 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, server := rawAlice(t, listenAt(t, nil))
			s := server.server
			heard := func() int {
				s.mu.Lock()
				defer s.mu.Unlock()
				return int(s.known.following.current.Sequence)
			}
			begun := time.Now()
			announcesAs(t, client, test.who, test.changes, 0)
			for heard() < test.changes {
				if time.Since(begun) > hanging {
					t.Fatalf("%d changes of %d were heard in %v", heard(), test.changes, hanging)
				}
				time.Sleep(time.Millisecond)
			}
			if took := time.Since(begun); took < test.least {
				t.Errorf("%d changes were heard in %v: a client that changes without end takes other clients' time; want %v at least", test.changes, took, test.least)
			}
		})
	}
}

// TestReadEndsThoughAClientAnnouncesWithoutEnd has more wait in the kernel than a read takes off.
func TestReadEndsThoughAClientAnnouncesWithoutEnd(t *testing.T) {
	needRoot(t, "the client has ids of its own")
	client, server := rawAlice(t, listenAt(t, nil))
	defer func(before int) { mostInARead = before }(mostInARead)
	mostInARead = atOnce
	server.server.mu.Lock() // nobody takes them off meanwhile
	for n := uint64(1); ; n++ {
		err := unix.Sendmsg(client.near, []byte(rawLost(n, 9)), nil, nil, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			if n <= 3*atOnce/2 {
				t.Skipf("the kernel queues no more than %d messages", n)
			}
			break
		}
		must(err)
	}
	client.write("2")
	server.server.mu.Unlock()
	for {
		n, err := server.Read(make([]byte, 1))
		if n == 1 {
			continue // the watching goroutine was faster
		}
		if !errors.Is(err, ErrContextLost) || !strings.Contains(err.Error(), "announcements came") {
			t.Errorf("Read = %d, %v, want ErrContextLost", n, err)
		}
		return
	}
}

// TestWhatIsReadWhileTheServerClosesIsNobodys: who wrote it may have been in the queue that was closed.
func TestWhatIsReadWhileTheServerClosesIsNobodys(t *testing.T) {
	needRoot(t, "the client has ids of its own")
	client, server := rawAlice(t, listenAt(t, nil))
	s := server.server
	s.mu.Lock()
	asAlice(func() { must(client.announce(1, client.token(), client.claim())) })
	s.mu.Unlock()
	s.close() // as Close does, when the reader has taken a byte off the socket
	if n, err := s.follow(server, 1); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a byte that was read while the connection was closed is handed out: %d, %v", n, err)
	}
}

// TestConnectionThatEndsKeepsNothing: whatever ends it.
func TestConnectionThatEndsKeepsNothing(t *testing.T) {
	needRoot(t, "the client has ids of its own")
	user := aliceToken().UID()
	for name, end := range map[string]func(client *rawClient, server *Conn){
		"closed": func(_ *rawClient, server *Conn) { server.Close() },
		"frozen": func(_ *rawClient, server *Conn) { server.server.freeze() },
		"lost": func(client *rawClient, server *Conn) {
			client.say("garbage")
			server.Client()
		},
		"read to the end": func(client *rawClient, server *Conn) {
			client.write(strings.Repeat("x", 2000))
			unix.Shutdown(client.near, unix.SHUT_RDWR)
			client.close()
			_, _ = io.Copy(io.Discard, struct{ io.Reader }{server})
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := rawAlice(t, listenAt(t, nil))
			const n = 100
			sent := announcesAlice(t, client, n, 1000)
			for begun := time.Now(); keptOfUsers.of(quota.User(user)) == 0 || sent.Load() < n; time.Sleep(time.Millisecond) {
				if time.Since(begun) > hanging {
					t.Fatalf("%d announcements were sent, and %d bytes are counted for their user", sent.Load(), keptOfUsers.of(quota.User(user)))
				}
			}
			end(client, server)
			server.server.mu.Lock()
			defer server.server.mu.Unlock()
			if f := server.server.known.following; f.kept != 0 || len(f.waiting) != 0 || keptOfUsers.of(quota.User(user)) != 0 {
				t.Errorf("%d announcements wait, %d bytes are counted for the connection, and %d for its user", len(f.waiting), f.kept, keptOfUsers.of(quota.User(user)))
			}
		})
	}
}

// TestChangeWhileAScopeIsEnteredIsWorn has the client change after the thread has put on who it was, and before it is known to follow.
func TestChangeWhileAScopeIsEnteredIsWorn(t *testing.T) {
	needRoot(t, "the client changes its ids")
	_, server := rawAlice(t, listenAt(t, nil))
	before, after := aliceToken(), must1(token.FromIDs(61002, 61002, []uint32{61102}))
	for _, test := range []struct {
		name    string
		to      *token.Token
		becomes int
		lost    bool
	}{
		{"not changed", before, 61001, false},
		{"changed", after, 61002, false},
		{"lost", nil, nobodyOf(server.server.listener), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &Scope{}
			s.beginFollowing(before, server, 0, nil)
			if err := s.worn.Enter(before); err != nil {
				t.Fatal(err)
			}
			if test.to != before {
				s.follow(test.to, nil)
			}
			s.entered(&s.worn, before)
			becomesUID(t, "who enters a scope when its client has "+test.name, test.becomes)
			wears := s.worn.Token().UID()
			err := s.run("", func(*Scope) error { return s.lostErr() })
			if int(wears) != test.becomes || errors.Is(err, ErrContextLost) != test.lost {
				t.Errorf("the thread's token is of uid %d, want %d; the scope's loss is %v", wears, test.becomes, err)
			}
			if got := unix.Geteuid(); got != 0 {
				t.Errorf("after the scope the thread is uid %d", got)
			}
		})
	}
}

// TestConnectionsOfOneUserTakeABoundedPartAndAllGetOn has a user open many connections on which much waits.
func TestConnectionsOfOneUserTakeABoundedPartAndAllGetOn(t *testing.T) {
	needRoot(t, "the clients have groups")
	const many, each, mib = 24, 8, 1 << 20
	l := listenAt(t, nil)
	p, conns := crowd{61001, many, each, 2, mostGroups}.start(t, l)
	takeAll(t, p, conns)
	q, others := crowd{61002, 1, each, 2, mostGroups}.start(t, l)
	takeAll(t, q, others)
	if kept := keptOfUsers.of(61001); kept < 15*mib || kept > 24*mib {
		t.Errorf("%d bytes wait on the connections of one user, want 16 MiB and one announcement for each connection", kept)
	}
	if kept := keptOfUsers.of(61002); kept < mib {
		t.Errorf("%d bytes wait on another user's connection, want as many as if it were alone", kept)
	}
	p.resume()
	q.resume()
	for i, c := range append(conns, others...) {
		c.SetReadDeadline(time.Now().Add(3 * patience))
		got, err := io.Copy(io.Discard, struct{ io.Reader }{c})
		if err != nil || got != crowdWrites {
			t.Errorf("connection %d: %d bytes were read, %v, want %d", i, got, err, crowdWrites)
		}
		who, err := c.Client()
		if err != nil || int(who.UID()) != 61001+i/many || len(who.Groups()) != mostGroups {
			t.Errorf("connection %d: the client is not who it announced at last: %v", i, err)
		}
	}
	for _, user := range []uint32{61001, 61002} {
		if kept := keptOfUsers.of(quota.User(user)); kept != 0 {
			t.Errorf("%d bytes are counted for uid %d when all has been read", kept, user)
		}
	}
	p.end()
	q.end()
}
