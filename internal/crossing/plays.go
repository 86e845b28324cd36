package crossing

import (
	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
)

var (
	dynamic  = guise.QoS{Tracking: guise.Dynamic}
	static   = guise.QoS{Tracking: guise.Static}
	unstated guise.QoS
)

// follows claims that servers which are in scopes, and sleep, are as A once A has changed.
func (p *play) follows(a *player, to Person, servers ...*player) {
	for _, s := range servers {
		p.does(s, actor.Order{Act: actor.Watch, IDs: to.IDs, Patience: within})
	}
	p.does(a, actor.Order{Act: actor.Become, IDs: to.IDs})
	for _, s := range servers {
		saw := p.does(s, actor.Order{Act: actor.Watched}).At
		p.acts(s, to, map[bool]string{true: "", false: ", whose change did not come,"}[saw != 0])
	}
}

func (p *play) oneMachine() {
	a, b, c := p.enter(A, 1), p.serve(B, 1), p.serve(C, 1)
	p.tell("A opens B's pipe, B acts as A and opens C's, C acts as whom B acts as: all on one machine.")
	p.connect(a, b, dynamic)
	p.writes(a, b)
	p.impersonates(b, a)
	p.connect(b, c, dynamic)
	p.writes(b, c)
	p.impersonates(c, b)
	p.acts(c, A, "")
	p.quality(b, c, guise.Dynamic)
	p.tell("While B and C are in their scopes, and sleep, A changes its ids by system calls to those of %v, and back.", A2)
	p.follows(a, A2, b, c)
	p.follows(a, A, b, c)
	answer := p.does(c, actor.Order{Act: actor.Token})
	p.claim(!answer.Network, "C's context did not come over the network", "")
	p.way(c, answer, a, b)
	p.reverts(c)
	p.reverts(b)
	p.tell("B has left its scope and writes again.")
	p.writes(b, c)
	p.serves(c, b, B, "")
}

func (p *play) lastAway() {
	a, b, c := p.enter(A, 1), p.serve(B, 1), p.serve(C, 2)
	if !p.kind.NTLM {
		p.login(A, 1)
	}
	p.tell("A has a ticket on machine 1 and opens B's pipe there. B acts as A and opens C's pipe on machine 2.")
	p.connect(a, b, dynamic)
	p.writes(a, b)
	p.impersonates(b, a)
	before := p.callsOf(c.on)
	p.connect(b, c, dynamic, p.byPassword(A))
	p.writes(b, c)
	p.heardOnly(before, A, ", through B")
	p.quality(b, c, guise.Static)
	p.impersonates(c, b)
	p.acts(c, A, ", via B")
	p.origin(c, A, a.on)
	p.tell("A changes its ids to those of %v. B, in its scope, follows; then it writes to C again.", A2)
	p.follows(a, A2, b)
	p.acts(c, A, " still, in the scope that it is in")
	p.reverts(c)
	p.writes(b, c)
	p.serves(c, b, A, " still, in the next scope")
	p.reverts(b)
	p.tell("B has left its scope and writes on that pipe once more.")
	p.writes(b, c)
	p.serves(c, b, A, " still")
}

func (p *play) firstAway() {
	a, b, c := p.enter(A, 1), p.serve(B, 2), p.serve(C, 2)
	p.firstHop(a, b)
	p.quality(a, b, guise.Static)
	p.acts(b, A, "")
	p.origin(b, A, a.on)
	p.tell("B, in its scope, opens C's pipe on the same machine, and C impersonates.")
	p.connect(b, c, dynamic)
	p.writes(b, c)
	p.quality(b, c, guise.Dynamic)
	p.impersonates(c, b)
	p.acts(c, A, "")
	p.origin(c, A, a.on, b)
	p.reverts(c)
	p.tell("A changes its ids to those of %v and writes; B leaves its scope, reads, and enters it anew.", A2)
	p.does(a, actor.Order{Act: actor.Become, IDs: A2.IDs})
	p.reverts(b)
	p.writes(a, b)
	p.tell("Outside of its scope, B writes to C again.")
	p.writes(b, c)
	p.serves(c, b, B, ", who is what it follows")
	p.impersonates(b, a)
	p.acts(b, A, " still")
	p.tell("B is back in its scope, and writes to C on the pipe that it has had all along.")
	p.writes(b, c)
	p.impersonates(c, b)
	p.acts(c, A, "")
	p.origin(c, A, a.on, b)
	p.reverts(c)
	p.reverts(b)
}

// firstHop has A on one machine open B's pipe on another, and B impersonate it.
func (p *play) firstHop(a, b *player) {
	how := "Kerberos"
	if p.kind.NTLM {
		how = "a password, by NTLM"
	} else {
		p.login(A, 1)
	}
	p.tell("A opens B's pipe on machine 2, with %s, and B impersonates A.", how)
	before := p.callsOf(b.on)
	p.connect(a, b, dynamic, p.byPassword(A))
	p.heardOnly(before, A, "")
	p.writes(a, b)
	p.impersonates(b, a)
}

// inVain has somebody in a scope whose client came over the network try to open a pipe of another machine in every way.
func (p *play) inVain(client, server *player) {
	before := p.callsOf(server.on)
	for _, try := range []struct {
		what string
		qos  guise.QoS
		more []func(*actor.Order)
	}{
		{"dynamic tracking", dynamic, nil},
		{"static tracking", static, nil},
		{"no tracking in particular", unstated, nil},
		{"static tracking and A's password", static, []func(*actor.Order){func(o *actor.Order) {
			o.Password = &actor.Password{Account: A.Account, Secret: A.Password}
		}}},
		{"static tracking and its own password", static, []func(*actor.Order){func(o *actor.Order) {
			o.Password = &actor.Password{Account: client.Account, Secret: client.Password}
		}}},
	} {
		p.refused(client, p.dial(client, server, try.qos, try.more...), guise.ErrNoDelegation,
			client.Name+"'s call to "+server.Name+" on "+server.on.Name+" with "+try.what)
	}
	p.silent(before)
	p.acts(client, A, " after that, too")
}

func (p *play) threeMachines(third int) {
	a, b, c := p.enter(A, 1), p.serve(B, 2), p.serve(C, third)
	p.firstHop(a, b)
	p.acts(b, A, "")
	p.login(A, 2)
	p.login(B, 2)
	p.tell("On machine 2 lie tickets of A's own and of B's. In its scope, B calls C on machine %d.", third)
	p.inVain(b, c)
	p.tell("The call goes through, as B, once B has left its scope: nothing else was in the way.")
	p.reverts(b)
	before := p.callsOf(c.on)
	p.connect(b, c, dynamic)
	p.heardOnly(before, B, "")
	p.writes(b, c)
	p.serves(c, b, B, "")
}

func (p *play) outsideScope() {
	a, b, c := p.enter(A, 1), p.serve(B, 2), p.serve(C, 3)
	p.firstHop(a, b)
	p.acts(b, A, "")
	p.login(B, 2)
	for _, asked := range []guise.QoS{dynamic, static} {
		p.reverts(b)
		p.tell("B leaves its scope, opens C's pipe on machine 3 and asks for %v tracking. C impersonates its client.", asked.Tracking)
		before := p.callsOf(c.on)
		p.connect(b, c, asked)
		p.heardOnly(before, B, "")
		p.writes(b, c)
		if asked == dynamic {
			p.quality(b, c, guise.Static)
		}
		p.impersonates(c, b)
		p.acts(c, B, "")
		p.origin(c, B, b.on)
		p.reverts(c)
		p.tell("B, in its scope for A again, writes on that pipe.")
		p.impersonates(b, a)
		p.writes(b, c)
		p.serves(c, b, B, " still: B opened the pipe as itself")
		p.does(b, actor.Order{Act: actor.Close, Conn: c.Name})
		p.does(c, actor.Order{Act: actor.Close, Conn: b.Name})
	}
	p.reverts(b)
}

func (p *play) localBetween() {
	a, b, c, d := p.enter(A, 1), p.serve(B, 2), p.serve(C, 2), p.serve(D, 3)
	p.firstHop(a, b)
	p.login(A, 2)
	p.login(B, 2)
	p.login(C, 2)
	p.tell("On machine 2 lie tickets of A's own, of B's and of C's.")
	for _, asked := range []guise.QoS{dynamic, static} {
		p.tell("B, in its scope, opens C's pipe on the same machine, with %v tracking. C impersonates, and in its scope calls D on machine 3.", asked.Tracking)
		p.connect(b, c, asked)
		p.writes(b, c)
		p.impersonates(c, b)
		p.acts(c, A, "")
		p.origin(c, A, a.on, b)
		p.inVain(c, d)
		p.reverts(c)
		p.does(b, actor.Order{Act: actor.Close, Conn: c.Name})
		p.does(c, actor.Order{Act: actor.Close, Conn: b.Name})
	}
	p.tell("Outside of its scope, C calls D as itself.")
	before := p.callsOf(d.on)
	p.connect(c, d, dynamic)
	p.heardOnly(before, C, "")
	p.writes(c, d)
	p.serves(d, c, C, "")
	p.reverts(b)
}

// levels has the qualities that SMB does not carry asked for.
func (p *play) levels() {
	a, b := p.enter(A, 1), p.serve(B, 2)
	if !p.kind.NTLM {
		p.login(A, 1)
	}
	before := p.callsOf(b.on)
	for _, qos := range []guise.QoS{
		{Level: guise.Anonymous}, {Level: guise.Identification}, {Level: guise.Delegation}, {Level: guise.Delegation, Tracking: guise.Dynamic},
	} {
		p.refused(a, p.dial(a, b, qos, p.byPassword(A)), guise.ErrLevel, "A's call to B on machine 2 with level "+qos.Level.String())
	}
	p.refused(a, p.dial(a, b, guise.QoS{EffectiveOnly: true}, p.byPassword(A)), guise.ErrLevel, "A's call to B on machine 2 with effective-only")
	p.silent(before)
	p.tell("With level Impersonation, A opens B's pipe.")
	p.connect(a, b, guise.QoS{Level: guise.Impersonation, Tracking: guise.Dynamic}, p.byPassword(A))
	p.writes(a, b)
	p.quality(a, b, guise.Static)
	p.serves(b, a, A, "")
}
