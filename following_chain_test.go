package guise_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// hop is an actor whose failures end the test.
type chainActor struct {
	actor.Actor
	t    *testing.T
	name string
}

func startActor(t *testing.T, start func(actor.IDs, ...uintptr) (actor.Actor, error), name string, ids actor.IDs, capabilities ...uintptr) *chainActor {
	t.Helper()
	a, err := start(ids, capabilities...)
	if err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	c := &chainActor{a, t, name}
	t.Cleanup(func() {
		if err := a.Stop(); err != nil {
			t.Errorf("stopping %s: %v", name, err)
		}
	})
	return c
}

func (a *chainActor) must(o actor.Order) actor.Answer {
	a.t.Helper()
	answer, err := a.Do(o)
	if err != nil {
		a.t.Fatalf("%s was to %s (%s%s): %v", a.name, o.Act, o.Conn, o.Pipe, err)
	}
	return answer
}

func (a *chainActor) shows() string {
	a.t.Helper()
	ids := a.must(actor.Order{Act: actor.Who}).Shown.IDs
	return fmt.Sprint(ids.UID, " ", ids.GID, " ", ids.Groups)
}

func (a *chainActor) becomes(when string, want actor.IDs) {
	a.t.Helper()
	to := fmt.Sprint(want.UID, " ", want.GID, " ", want.Groups)
	until(a.t, fmt.Sprintf("%s %s's thread has to become %s", when, a.name, to), func() (string, bool) {
		got := a.shows()
		return got, got == to
	})
}

func (a *chainActor) stays(when string, want actor.IDs) {
	a.t.Helper()
	for range 20 {
		if got, to := a.shows(), fmt.Sprint(want.UID, " ", want.GID, " ", want.Groups); got != to {
			a.t.Errorf("%s %s's thread is %s, and has to remain %s", when, a.name, got, to)
			return
		}
	}
}

// TestChainsFollow has the rows of the table of chains (docs/semantics.md), with the change of A while B and C are each in one long
// scope, and what follows when B reverts.
func TestChainsFollow(t *testing.T) {
	needRoot(t)
	alice := actor.IDs{UID: 61001, GID: 61001, Groups: []uint32{61101}}
	alice2 := actor.IDs{UID: 61011, GID: 61011, Groups: []uint32{61111, 61112}}
	alice3 := actor.IDs{UID: 61021, GID: 61021, Groups: []uint32{61121}}
	bob := actor.IDs{UID: 61002, GID: 61002, Groups: []uint32{61102}}
	carol := actor.IDs{UID: 61003, GID: 61003, Groups: []uint32{61103}}
	for kind, start := range map[string]func(actor.IDs, ...uintptr) (actor.Actor, error){"processes": actor.Process, "goroutines": actor.Goroutine} {
		for _, toB := range []guise.Tracking{guise.Dynamic, guise.Static} {
			for _, toC := range []guise.Tracking{guise.Dynamic, guise.Static} {
				for _, before := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/A to B %v, B to C %v, opened before the scope: %v", kind, toB, toC, before), func(t *testing.T) {
						pipe := func(of actor.IDs) string {
							dir := testdir.Open(t, 0o755)
							chown(t, dir, of)
							return dir + "/pipe"
						}
						switching := []uintptr{token.CapSetuid, token.CapSetgid}
						a := startActor(t, start, "A", alice, switching...)
						b := startActor(t, start, "B", bob, switching...)
						c := startActor(t, start, "C", carol, switching...)
						pipeB, pipeC := pipe(bob), pipe(carol)
						b.must(actor.Order{Act: actor.Listen, Pipe: pipeB})
						c.must(actor.Order{Act: actor.Listen, Pipe: pipeC})
						a.must(actor.Order{Act: actor.Dial, Pipe: pipeB, Conn: "B", QoS: &guise.QoS{Tracking: toB}})
						a.must(actor.Order{Act: actor.Write, Conn: "B", Text: "x"})
						b.must(actor.Order{Act: actor.Accept, Pipe: pipeB, Conn: "A"})
						b.must(actor.Order{Act: actor.Read, Conn: "A"})
						dial := actor.Order{Act: actor.Dial, Pipe: pipeC, Conn: "C", QoS: &guise.QoS{Tracking: toC}}
						if before {
							b.must(dial)
						}
						b.must(actor.Order{Act: actor.Enter, Conn: "A"})
						if !before {
							b.must(dial)
						}
						b.must(actor.Order{Act: actor.Write, Conn: "C", Text: "x"})
						c.must(actor.Order{Act: actor.Accept, Pipe: pipeC, Conn: "B"})
						c.must(actor.Order{Act: actor.Read, Conn: "B"})
						c.must(actor.Order{Act: actor.Enter, Conn: "B"})

						b.stays("at first", alice)
						seen := alice
						if before && toC == guise.Static {
							seen = bob
						}
						c.stays("at first", seen)

						a.must(actor.Order{Act: actor.Become, IDs: alice2})
						if toB == guise.Dynamic {
							b.becomes("after A has changed", alice2)
						} else {
							b.stays("after A has changed", alice)
						}
						if toB == guise.Dynamic && toC == guise.Dynamic {
							seen = alice2
							c.becomes("after A has changed", seen)
						} else {
							c.stays("after A has changed", seen)
						}

						b.must(actor.Order{Act: actor.Leave})
						b.stays("out of the scope", bob)
						c.stays("after B has reverted", seen)
						a.must(actor.Order{Act: actor.Become, IDs: alice3})
						c.stays("after B has reverted and A has changed", seen)
						b.must(actor.Order{Act: actor.Write, Conn: "C", Text: "x"})
						c.stays("after B has reverted and written", seen)
						c.must(actor.Order{Act: actor.Read, Conn: "B"})
						c.stays("after what B wrote was read", seen)
						c.must(actor.Order{Act: actor.Leave})
						c.stays("out of the scope", carol)

						c.must(actor.Order{Act: actor.Enter, Conn: "B"})
						if toC == guise.Dynamic {
							seen = bob
						}
						c.stays("in the next scope, after what B wrote was read,", seen)
						c.must(actor.Order{Act: actor.Leave})
					})
				}
			}
		}
	}
}

// TestLongChainFollows has a change go through eight servers, each in a scope of the one before.
func TestLongChainFollows(t *testing.T) {
	needRoot(t)
	alice, bob := identity(t, 61001, 61001, 61101), identity(t, 61002, 61002, 61102)
	const hops = 8
	client := play(t)
	client.become(alice)
	l := listenOn(t, nil)
	_, server := client.opens(l, dynamic)
	var scopes []*within
	for i := range hops {
		w := enters(t, server)
		scopes = append(scopes, w)
		w.becomes(fmt.Sprintf("at first, hop %d:", i+1), alice)
		next := listenOn(t, nil)
		w.do(func() {
			near, err := guise.Dial(next.Addr().String(), dynamic)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { near.Close() })
			writes(t, near)
		})
		server = accept(t, next)
	}
	last := enters(t, server)
	scopes = append(scopes, last)
	for _, to := range []*token.Token{bob, alice, bob} {
		client.become(to)
		last.becomes("at the end of the chain:", to)
		for i, w := range scopes {
			w.becomes(fmt.Sprintf("hop %d:", i+1), to)
		}
	}
	if via := last.scope.Token().Via(); len(via) != hops+1 {
		t.Errorf("the way has %d processes, want %d: %v", len(via), hops+1, via)
	}
	for _, w := range slices.Backward(scopes) {
		w.leave()
	}
}

// TestChangeThatTheServerTakesInInItsScopeGoesOn has B, in its scope, be the one that takes A's change off its channel: by a read, by
// asking who the client is, and by another entry.
func TestChangeThatTheServerTakesInInItsScopeGoesOn(t *testing.T) {
	needRoot(t)
	alice := identity(t, 61001, 61001)
	for name, takeIn := range map[string]func(t *testing.T, b *guise.Conn){
		"Client":      func(t *testing.T, b *guise.Conn) { b.Client() },
		"RunAsClient": func(t *testing.T, b *guise.Conn) { inside(t, b, func(*guise.Scope) {}) },
	} {
		t.Run(name, func(t *testing.T) {
			client := play(t)
			client.become(alice)
			_, b := client.opens(listenOn(t, nil), dynamic)
			back := listenOn(t, nil)
			inside(t, b, func(s *guise.Scope) {
				hop, err := guise.Dial(back.Addr().String(), dynamic)
				if err != nil {
					t.Error(err)
					return
				}
				defer hop.Close()
				writes(t, hop)
				last := enters(t, accept(t, back))
				defer last.leave()
				before := last.scope.Token()
				for i := range uint32(200) {
					to := identity(t, 61001+i%2, 61001+i%2, 61101+i)
					changesUntil(t, client, to, s, func() { takeIn(t, b) })
					if !last.becomes(fmt.Sprintf("after B itself took in change %d, C:", i), to) {
						return
					}
					if got := last.scope.Token(); len(got.Via()) != len(before.Via()) {
						t.Errorf("after change %d C's context has come by way of %v, before by way of %v", i, got.Via(), before.Via())
						return
					}
				}
			})
		})
	}
}

// TestChangeDuringAHopsWritesGoesOn has the client change while B writes, which sees the change and then writes no more.
func TestChangeDuringAHopsWritesGoesOn(t *testing.T) {
	needRoot(t)
	back := listenOn(t, nil)
	client := play(t)
	client.become(identity(t, 61001, 61001))
	_, b := client.opens(listenOn(t, nil), dynamic)
	inside(t, b, func(s *guise.Scope) {
		hop, err := guise.Dial(back.Addr().String(), dynamic)
		if err != nil {
			t.Error(err)
			return
		}
		defer hop.Close()
		writes(t, hop)
		c := accept(t, back)
		read := make(chan struct{})
		go func() {
			defer close(read)
			for buf := make([]byte, 1<<16); ; {
				if n, err := c.Read(buf); n == 0 || err != nil {
					return
				}
			}
		}()
		last := enters(t, c)
		for i := range uint32(300) {
			to := identity(t, 61001+(i+1)%2, 61001)
			changesUntil(t, client, to, s, func() { writes(t, hop) })
			if !last.becomes(fmt.Sprintf("after change %d, which came while B wrote, C:", i), to) {
				break
			}
		}
		last.leave()
		hop.Close()
		<-read
	})
}

// TestChangeDuringAHopsDialGoesOn has the client change while B opens connections, on which it never writes.
func TestChangeDuringAHopsDialGoesOn(t *testing.T) {
	needRoot(t)
	back := listenOn(t, nil)
	client := play(t)
	client.become(identity(t, 61001, 61001))
	_, b := client.opens(listenOn(t, nil), dynamic)
	inside(t, b, func(s *guise.Scope) {
		for i := range uint32(300) {
			to := identity(t, 61001+(i+1)%2, 61001)
			changed := make(chan struct{})
			go func() { defer close(changed); client.become(to) }()
			var ends []*guise.Conn
			until(t, fmt.Sprintf("B has to see change %d", i), func() (string, bool) {
				hop, err := guise.Dial(back.Addr().String(), dynamic)
				if err != nil {
					t.Error(err)
					return "", true
				}
				c, err := back.AcceptPipe()
				if err == nil {
					err = c.WaitClient(t.Context())
				}
				if err != nil {
					t.Error(err)
					return "", true
				}
				ends = append(ends, hop, c)
				got := s.Token()
				return shows(got), got.SameIDs(to)
			})
			<-changed
			for j := 1; j < len(ends); j += 2 {
				until(t, fmt.Sprintf("after change %d, which came while B opened connections, who C acts for on connection %d of %d has to become %s", i, (j+1)/2, len(ends)/2, shows(to)), func() (got string, ok bool) {
					inside(t, ends[j], func(*guise.Scope) { got = threadIDs() })
					return got, got == shows(to) || t.Failed()
				})
			}
			for _, c := range ends {
				c.Close()
			}
			if t.Failed() {
				return
			}
		}
	})
}

// changesUntil has a client change, and the holder of a scope for it do something again and again meanwhile, until the scope shows it.
func changesUntil(t *testing.T, client *player, to *token.Token, s *guise.Scope, meanwhile func()) {
	t.Helper()
	changed := make(chan struct{})
	go func() { defer close(changed); client.become(to) }()
	until(t, "B has to see that A has changed: it", func() (string, bool) {
		meanwhile()
		got := s.Token()
		return shows(got), got.SameIDs(to)
	})
	<-changed
}
