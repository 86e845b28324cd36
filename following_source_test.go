package guise_test

import (
	"fmt"
	"testing"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// witness is a dynamic connection of a player beside the one that a test is about: what its scope has followed, the other could have.
type witness struct {
	*within
	player *player
}

func witnessOf(t testing.TB, p *player, l *guise.Listener) *witness {
	t.Helper()
	_, server := p.opens(l, dynamic)
	return &witness{enters(t, server), p}
}

// sees has the player become another, and waits until the witness has followed.
func (w *witness) sees(to *token.Token) {
	w.t.Helper()
	w.player.become(to)
	w.becomes("a scope beside that of the test:", to)
}

// TestScopeFollowsOnlyTheSourceItWasEnteredFor has a client that acts for two others write for one after the other on one
// connection.
func TestScopeFollowsOnlyTheSourceItWasEnteredFor(t *testing.T) {
	needRoot(t)
	for _, message := range []bool{false, true} {
		t.Run(fmt.Sprintf("message=%v", message), func(t *testing.T) {
			alice, alice2, alice3 := identity(t, 61001, 61001), identity(t, 61011, 61011), identity(t, 61021, 61021)
			bob, bob2 := identity(t, 61002, 61002), identity(t, 61012, 61012)
			front, back := listenOn(t, nil), listenOn(t, &guise.ListenConfig{Message: message})
			a, b := play(t), play(t)
			a.become(alice)
			b.become(bob)
			besideA := witnessOf(t, a, front)
			_, serverA := a.opens(front, dynamic)
			_, serverB := b.opens(front, dynamic)
			forA, forB := enters(t, serverA), enters(t, serverB)

			hop, err := guise.Dial(back.Addr().String(), dynamic)
			if err != nil {
				t.Fatal(err)
			}
			defer hop.Close()
			forA.do(func() { writes(t, hop) })
			server := accept(t, back)
			first := enters(t, server)
			first.becomes("entered for A:", alice)

			forB.do(func() { writes(t, hop) })
			first.stays("after B's scope wrote too, the scope for A:", alice)
			b.become(bob2)
			forB.becomes("B's scope:", bob2)
			first.stays("after B has changed, the scope for A:", alice)
			inside(t, server, func(*guise.Scope) { is(t, "in a scope that is entered before B's data was read", alice) })
			a.become(alice2)
			first.becomes("after A has changed, with B's data unread, the scope for A:", alice2)
			reads(t, server)
			first.stays("after B's data was read, the scope for A:", alice2)
			second := enters(t, server)
			second.becomes("entered for B, who changed after it wrote:", bob2)
			b.become(bob)
			second.becomes("the scope for B:", bob)
			first.stays("after B has changed again, the scope for A:", alice2)
			besideA.sees(alice)
			first.becomes("after A has changed back, the scope for A:", alice)
			second.stays("after A has changed back, the scope for B:", bob)

			forA.leave()
			besideA.sees(alice3)
			first.stays("after the client's scope for A has ended, the server's:", alice)
			second.stays("after the client's scope for A has ended, the server's for B:", bob)
		})
	}
}

// TestClientThatChangesBetweenWritesIsFollowedAtTheNextEntry never reads after the change.
func TestClientThatChangesBetweenWritesIsFollowedAtTheNextEntry(t *testing.T) {
	needRoot(t)
	alice, bob := identity(t, 61001, 61001), identity(t, 61002, 61002, 61102)
	client := play(t)
	client.become(alice)
	_, server := client.opens(listenOn(t, nil), dynamic)
	inside(t, server, func(*guise.Scope) { is(t, "at first", alice) })
	client.become(bob)
	until(t, "a new scope has to be as who the client has become, without another write", func() (got string, ok bool) {
		inside(t, server, func(*guise.Scope) { got = threadIDs() })
		return got, got == shows(bob)
	})
}

// TestWhatGoesWithAWriteWaitsForWhatWasReadBefore has a client write for somebody else while the server acts as itself.
func TestWhatGoesWithAWriteWaitsForWhatWasReadBefore(t *testing.T) {
	needRoot(t)
	alice, bob := identity(t, 61001, 61001), identity(t, 61002, 61002)
	client := play(t)
	client.become(alice)
	near, server := client.opens(listenOn(t, nil), dynamic)
	inside(t, server, func(*guise.Scope) {
		wrote := make(chan struct{})
		go func() { defer close(wrote); writeAs(t, near, bob, 'b') }()
		<-wrote
		stays(t, "after the client wrote for another", alice)
		inside(t, server, func(*guise.Scope) { is(t, "in a scope that is entered before that is read", alice) })
		reads(t, server)
		stays(t, "after that was read, in the scope that was entered before,", alice)
		inside(t, server, func(*guise.Scope) { is(t, "in a scope that is entered after that was read", bob) })
		is(t, "back in the first scope", alice)
	})
	inside(t, server, func(*guise.Scope) { is(t, "in the next scope", bob) })
}

func TestLastContextStands(t *testing.T) {
	needRoot(t)
	first, last := identity(t, 61001, 61001, 61101), identity(t, 61002, 61001, 61101)
	for _, end := range []struct {
		name string
		end  func(c *roleProcess)
	}{
		{"closes", func(c *roleProcess) { c.tell("close"); c.tell("all threads 61001") }},
		{"exits", func(c *roleProcess) { c.end() }},
		{"is killed", func(c *roleProcess) { c.cmd.Process.Kill(); c.cmd.Wait(); c.ended = true }},
		{"executes another program", func(c *roleProcess) { c.tell("exec") }},
	} {
		t.Run("the client "+end.name, func(t *testing.T) {
			l := listenOn(t, nil)
			client := startClient(t, l)
			server := accept(t, l)
			inside(t, server, func(s *guise.Scope) {
				is(t, "at first", first)
				client.tell("all threads 61002")
				becomes(t, "after the client changed", last)
				end.end(client)
				stays(t, "after its client's end", last)
			})
			inside(t, server, func(*guise.Scope) { is(t, "in the next scope", last) })
			if n, err := server.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("reading on gives %d bytes, %v", n, err)
			}
			inside(t, server, func(*guise.Scope) { is(t, "in a scope after the end was read", last) })
		})
	}
}

// TestChangeJustBeforeTheEndIsFollowed has the client change and close at once.
func TestChangeJustBeforeTheEndIsFollowed(t *testing.T) {
	needRoot(t)
	alice, bob := identity(t, 61001, 61001), identity(t, 61002, 61002)
	client := play(t)
	client.become(alice)
	near, server := client.opens(listenOn(t, nil), dynamic)
	inside(t, server, func(*guise.Scope) {
		client.do(func() {
			if err := rawBecome(bob); err != nil {
				t.Error(err)
			}
			near.Close()
		})
		becomes(t, "after its client changed and closed,", bob)
	})
}

func TestStaticAndFrozenClientsAreNotFollowed(t *testing.T) {
	needRoot(t)
	alice, bob, carol := identity(t, 61001, 61001), identity(t, 61002, 61002), identity(t, 61003, 61003)
	l := listenOn(t, nil)
	client := play(t)
	client.become(alice)
	beside := witnessOf(t, client, l)
	_, static := client.opens(l, &guise.QoS{Tracking: guise.Static})
	_, unstated := client.opens(l, nil)
	_, frozen := client.opens(l, dynamic)
	ofStatic, ofUnstated, ofFrozen := enters(t, static), enters(t, unstated), enters(t, frozen)
	beside.sees(bob)
	ofStatic.stays("with static tracking", alice)
	ofUnstated.stays("where nobody stated any tracking", alice)
	ofFrozen.becomes("with dynamic tracking", bob)
	changed := ofFrozen.scope.Changed()
	if err := frozen.Freeze(); err != nil {
		t.Fatal(err)
	}
	beside.sees(carol)
	ofFrozen.stays("after Freeze", bob)
	select {
	case <-changed:
		t.Error("Changed is closed after Freeze")
	default:
	}
	for _, server := range []*guise.Conn{static, unstated} {
		inside(t, server, func(*guise.Scope) { is(t, "in the next scope of a static client", alice) })
	}
	inside(t, frozen, func(*guise.Scope) { is(t, "in the next scope of a frozen client", bob) })
}

// TestBlockedWriteDoesNotStopAnnouncements has a client change while a write of its waits for the server to read.
func TestBlockedWriteDoesNotStopAnnouncements(t *testing.T) {
	needRoot(t)
	t.Run("of a process", func(t *testing.T) {
		l := listenOn(t, nil)
		client := startClient(t, l)
		server := accept(t, l)
		inside(t, server, func(*guise.Scope) {
			client.tell("fill")
			for _, uid := range []uint32{61002, 61001, 61002} {
				client.tell(fmt.Sprint("all threads ", uid))
				becomes(t, "while the client's write waits for this server,", identity(t, uid, 61001, 61101))
			}
		})
		server.Close()
		client.end()
	})
	t.Run("of a scope", func(t *testing.T) {
		alice, bob := identity(t, 61001, 61001), identity(t, 61002, 61002)
		client := play(t)
		client.become(alice)
		_, middle := client.opens(listenOn(t, nil), dynamic)
		back := listenOn(t, nil)
		var server *guise.Conn
		written := make(chan error, 1)
		forClient := enters(t, middle)
		forClient.do(func() {
			hop, err := guise.Dial(back.Addr().String(), dynamic)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { hop.Close() })
			writes(t, hop)
			server = accept(t, back)
			forClient.scope.Go(func() error {
				_, err := hop.Write(make([]byte, 64<<20))
				written <- err
				return nil
			})
		})
		inside(t, server, func(*guise.Scope) {
			for _, to := range []*token.Token{bob, alice, bob} {
				client.become(to)
				becomes(t, "while the hop's write waits for this server,", to)
			}
		})
		server.Close()
		if err := inTime(t, "the write ends with the connection", written); err == nil {
			t.Error("a write of more than a pipe holds did not wait")
		}
	})
}
