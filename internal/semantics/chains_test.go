package semantics

import (
	"testing"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
)

// link is how a connection comes to its tracking.
type link struct {
	tracking guise.Tracking
	stated   bool // by the client; otherwise the listener says it for clients that state none
}

func (l link) qos() *guise.QoS {
	if l.stated {
		return &guise.QoS{Tracking: l.tracking}
	}
	return nil
}

func (l link) listener() guise.Tracking {
	if l.stated {
		return guise.TrackingUnstated
	}
	return l.tracking
}

// chain is A, B and C with B's pipe and C's.
type chain struct {
	*stage
	a, b, c      *player
	pipeB, pipeC string
	ab, bc       link
}

func newChain(t *testing.T, k kind, th thing, ab, bc link) *chain {
	s := newStage(t, k)
	c := &chain{
		stage: s, ab: ab, bc: bc,
		pipeB: s.pipe("b", th.b), pipeC: s.pipe("c", th.c),
		a: s.player("A", th.on.IDs), b: s.player("B", th.b), c: s.player("C", th.c),
	}
	c.b.must(actor.Order{Act: actor.Listen, Pipe: c.pipeB, Tracking: ab.listener()})
	c.c.must(actor.Order{Act: actor.Listen, Pipe: c.pipeC, Tracking: bc.listener()})
	c.a.must(actor.Order{Act: actor.Dial, Pipe: c.pipeB, Conn: "B", QoS: ab.qos()})
	c.b.must(actor.Order{Act: actor.Accept, Pipe: c.pipeB, Conn: "A"})
	return c
}

// bOpensC has B open C's pipe, wearing what it wears.
func (c *chain) bOpensC() {
	c.t.Helper()
	c.b.must(actor.Order{Act: actor.Dial, Pipe: c.pipeC, Conn: "C", QoS: c.bc.qos()})
	c.c.must(actor.Order{Act: actor.Accept, Pipe: c.pipeC, Conn: "B"})
}

// aWritesToB has A write and B read it.
func (c *chain) aWritesToB() {
	c.t.Helper()
	c.a.write("B")
	c.b.read("A")
}

func eachChain(t *testing.T, test func(t *testing.T, k kind, th thing, ab, bc link)) {
	for _, k := range kinds {
		for _, th := range things {
			for _, stated := range []bool{true, false} {
				for _, ab := range []guise.Tracking{guise.Dynamic, guise.Static} {
					for _, bc := range []guise.Tracking{guise.Dynamic, guise.Static} {
						who := "stated by clients"
						if !stated {
							who = "said by listeners"
						}
						name := k.name + "/" + th.name + "/" + who + "/" + ab.String() + " then " + bc.String()
						t.Run(name, func(t *testing.T) { test(t, k, th, link{ab, stated}, link{bc, stated}) })
					}
				}
			}
		}
	}
}

// TestChainOpenedInScope has the columns of S4 in which B opens C's pipe in its scope.
func TestChainOpenedInScope(t *testing.T) {
	eachChain(t, func(t *testing.T, k kind, th thing, ab, bc link) {
		c := newChain(t, k, th, ab, bc)
		itself := th.itself()

		c.aWritesToB()
		c.b.enter("A")
		c.bOpensC()
		c.b.write("C")
		c.c.readsAndActsAs("B", "at first", th.on)
		c.b.leave()

		c.a.becomes(th.off)
		c.aWritesToB()
		c.b.enter("A")
		c.b.write("C")
		want := th.on
		if ab.tracking == guise.Dynamic && bc.tracking == guise.Dynamic {
			want = th.off
		}
		c.c.readsAndActsAs("B", "after A changed and B and C impersonated again", want)
		c.b.leave()

		c.b.write("C")
		if bc.tracking == guise.Dynamic {
			want = itself
		} else {
			want = th.on
		}
		c.c.readsAndActsAs("B", "after B reverted and wrote again", want)

		c.a.must(actor.Order{Act: actor.Close, Conn: "B"})
		want = th.on
		if ab.tracking == guise.Dynamic {
			want = th.off
		}
		c.b.actsAs("A", "after A closed", want)
		c.b.must(actor.Order{Act: actor.Close, Conn: "C"})
		_, err := c.c.Do(actor.Order{Act: actor.Read, Conn: "B"})
		if err == nil {
			t.Error("C read something after B closed its connection")
		}
	})
}

// TestChainOpenedBeforeScope has the column of S4 in which B opened C's pipe before its scope and writes inside it.
func TestChainOpenedBeforeScope(t *testing.T) {
	eachChain(t, func(t *testing.T, k kind, th thing, ab, bc link) {
		c := newChain(t, k, th, ab, bc)
		itself := th.itself()

		c.bOpensC()
		c.b.write("C")
		c.c.readsAndActsAs("B", "before B's scope", itself)

		c.aWritesToB()
		c.b.enter("A")
		c.b.write("C")
		want := itself
		if bc.tracking == guise.Dynamic {
			want = th.on
		}
		c.c.readsAndActsAs("B", "inside B's scope", want)
		c.b.leave()

		c.a.becomes(th.off)
		c.aWritesToB()
		c.b.enter("A")
		c.b.write("C")
		if bc.tracking == guise.Dynamic && ab.tracking == guise.Dynamic {
			want = th.off
		}
		c.c.readsAndActsAs("B", "after A changed", want)
		c.b.leave()
	})
}
