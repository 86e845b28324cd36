package main

import (
	"errors"
	"os"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
)

// arrivesWithin is how long anybody waits for a change to arrive. A loaded machine takes milliseconds, one whose process connector
// somebody has silenced up to a second.
const arrivesWithin = 5 * time.Second

var errInterrupted = errors.New("interrupted; everything was taken down")

// scene is a step of a play. Each is written so that it reads like one.
type scene func(*timeline)

// knowledgeBase is the timeline of KB 101378.
var knowledgeBase = []scene{
	(*timeline).open, (*timeline).chain, (*timeline).aChanges, (*timeline).bReverts, (*timeline).between, (*timeline).aGoes,
}

// play shows some scenes once.
func play(c *claims, interrupted <-chan os.Signal, cast cast, v version, scenes []scene) (err error) {
	s, err := newDemoStage(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.clear()) }()

	p := &timeline{demoStage: s, version: v}
	for _, who := range []struct {
		player **player
		person person
	}{{&p.a, personA}, {&p.b, personB}, {&p.c, personC}} {
		if *who.player, err = s.enter(cast, who.person); err != nil {
			return err
		}
	}
	for _, step := range scenes {
		select {
		case <-interrupted:
			return errInterrupted
		default:
		}
		step(p)
		if err := errors.Join(p.a.err, p.b.err, p.c.err); err != nil {
			return err
		}
	}
	return nil
}

// timeline is what the scenes of a play have in common.
type timeline struct {
	*demoStage
	version version
	a, b, c *player
	late    bool // a change did not come in time
}

func (p *timeline) qos() *guise.QoS {
	if p.version.stated {
		return &guise.QoS{Tracking: p.version.tracking}
	}
	return nil
}

func (p *timeline) listenerTracking() guise.Tracking {
	if p.version.stated {
		return guise.TrackingUnstated
	}
	return p.version.tracking
}

// either returns one or the other by the tracking.
func either[T any](p *timeline, static, dynamic T) T {
	if p.version.tracking == guise.Dynamic {
		return dynamic
	}
	return static
}

func (p *timeline) open() {
	p.narrate("B and C listen on their pipes. A opens B's and writes; B reads and impersonates its client.")
	p.b.does(actor.Order{Act: actor.Listen, Pipe: p.pipe(personB), Tracking: p.listenerTracking()})
	p.c.does(actor.Order{Act: actor.Listen, Pipe: p.pipe(personC), Tracking: p.listenerTracking()})
	p.connect(p.a, p.b, "B", "A")
	p.say(p.a, "B", p.b, "A")
	p.impersonate(p.b, "A")
	p.prove(p.b, personA, "")
}

func (p *timeline) chain() {
	p.narrate("While it acts as A, B opens C's pipe and writes; C reads and impersonates its client.")
	p.connect(p.b, p.c, "C", "B")
	p.say(p.b, "C", p.c, "B")
	p.impersonate(p.c, "B")
	p.prove(p.c, personA, "whom B acts as")
	p.revert(p.c)
	p.revert(p.b)
}

func (p *timeline) aChanges() {
	p.narrate("A changes its ids after the impersonation, to those of %s, and writes. B reads and impersonates again, and calls C.", personA2)
	p.a.does(actor.Order{Act: actor.Become, IDs: personA2.ids})
	p.say(p.a, "B", p.b, "A")
	p.impersonate(p.b, "A")
	p.prove(p.b, either(p, personA, personA2), either(p, "as A was when it opened the pipe", "as A is now"))
	p.say(p.b, "C", p.c, "B")
	p.impersonate(p.c, "B")
	p.prove(p.c, either(p, personA, personA2), either(p, "as B was when it opened the pipe", "as A is now, through B"))
	p.revert(p.c)
	p.revert(p.b)
}

func (p *timeline) bReverts() {
	p.narrate("B has reverted to itself. It writes to C once more.")
	p.say(p.b, "C", p.c, "B")
	p.impersonate(p.c, "B")
	p.prove(p.c, either(p, personA, personB), either(p, "as B was when it opened the pipe", "as B is now"))
	p.revert(p.c)
}

func (p *timeline) between() {
	p.narrate("A, who is %s now, opens B's pipe a second time, and changes back to %s between opening and impersonating.", personA2, personA)
	p.connect(p.a, p.b, "B again", "A again")
	p.a.does(actor.Order{Act: actor.Become, IDs: personA.ids})
	p.say(p.a, "B again", p.b, "A again")
	p.impersonate(p.b, "A again")
	p.prove(p.b, either(p, personA2, personA), either(p, "as A was when it opened the pipe", "as A is now"))
	p.revert(p.b)
	if p.version.tracking == guise.Static {
		p.narrate("    (Here two readings of NT differ. The KB says that static tracking has the context of \"the time the impersonation is")
		p.narrate("    done\", which would be %s; NT's pipe file system takes it at the open, as the kernel does here.)", personA)
	}
}

func (p *timeline) aGoes() {
	p.narrate("A closes its pipes and goes away. B impersonates it once more, on the first connection.")
	// A told of its change back on that connection too, and nothing has been read there since.
	p.hears(p.b, "A", personA)
	p.a.does(actor.Order{Act: actor.Close, Conn: "B"})
	p.a.does(actor.Order{Act: actor.Close, Conn: "B again"})
	if p.a.err == nil {
		p.a.err = p.leaveStage(p.a)
	}
	p.impersonate(p.b, "A")
	p.prove(p.b, personA, either(p, "as A was when it opened the pipe", "the last context of A that was proved, by its change back"))
	p.revert(p.b)
}

// connect has client open server's pipe, and server accept.
func (p *timeline) connect(client, server *player, clientCallsIt, serverCallsIt string) {
	client.does(actor.Order{Act: actor.Dial, Pipe: p.pipe(server.person), Conn: clientCallsIt, QoS: p.qos()})
	if client.err == nil { // or there is nobody to accept
		server.does(actor.Order{Act: actor.Accept, Pipe: p.pipe(server.person), Conn: serverCallsIt})
	}
}

// say has from write and to read.
func (p *timeline) say(from *player, fromConn string, to *player, toConn string) {
	from.does(actor.Order{Act: actor.Write, Conn: fromConn, Text: "do something for me"})
	if from.err == nil {
		to.does(actor.Order{Act: actor.Read, Conn: toConn})
	}
}

// hears waits until server has heard that a client of its has become somebody. If that does not come, what is shown next is
// not as claimed.
func (p *timeline) hears(server *player, client string, who person) {
	for end := time.Now().Add(arrivesWithin); time.Now().Before(end); time.Sleep(time.Millisecond) {
		a := server.does(actor.Order{Act: actor.Client, Conn: client})
		if server.err != nil || a.Context.UID == who.ids.UID {
			return
		}
	}
	p.narrate("    (%s has not heard within %v that its client is %s now)", server.person.name, arrivesWithin, who)
}

func (p *timeline) impersonate(server *player, client string) {
	server.does(actor.Order{Act: actor.Enter, Conn: client})
}

func (p *timeline) revert(server *player) { server.does(actor.Order{Act: actor.Leave}) }
