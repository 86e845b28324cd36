package crossing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/machines"
	"github.com/guise-project/guise/token"
)

// Teller tells an audience of a play.
type Teller interface {
	// Tell says what happens.
	Tell(what string)
	// Claim says what was claimed, what was shown of it, which may be nothing more, and whether it is so.
	Claim(right bool, what, shown string)
}

// within is how long anything may take in a play that has to come.
const within = 30 * time.Second

// play is one playing of a row.
type play struct {
	stage   *Stage
	ctx     context.Context
	end     context.CancelFunc // kills the actors
	kind    Variant
	teller  Teller
	err     error // after the first nothing more is done
	players []*player
	ready   []service
	logins  []login
	files   int
}

type login struct {
	who Person
	on  *machines.Machine
}

// player is somebody on a machine.
type player struct {
	actor.Actor
	Person
	on      *machines.Machine
	service service
}

func (p *player) String() string { return p.Name }

// Variant is how a row is played.
type Variant struct {
	NTLM    bool // the first pipe between machines is opened with a password, not by Kerberos
	Encrypt bool // clients require that their connections are encrypted
}

// Play plays a row. The error is what kept it from being played; what it showed is told.
func (s *Stage) Play(ctx context.Context, r Row, v Variant, t Teller) error {
	return s.play(ctx, v, t, r.play)
}

func (s *Stage) play(ctx context.Context, v Variant, t Teller, f func(*play)) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	s.plays++
	p := &play{stage: s, ctx: ctx, end: cancel, kind: v, teller: t}
	defer func() { err = errors.Join(err, p.clear()) }()
	f(p)
	if p.err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), p.err)
	}
	return p.err
}

// clear ends the actors and takes away what is the play's.
func (p *play) clear() error {
	var errs []error
	for _, who := range p.players {
		if err := who.Stop(); err != nil && p.ctx.Err() == nil {
			errs = append(errs, fmt.Errorf("stopping %s: %w", who, err))
		}
	}
	for _, s := range p.ready {
		errs = append(errs, s.remove())
	}
	for _, l := range p.logins {
		errs = append(errs, l.on.Logout(l.who.Account))
	}
	return errors.Join(errs...)
}

func (p *play) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

func (p *play) tell(format string, args ...any) {
	if p.err == nil {
		p.teller.Tell(fmt.Sprintf(format, args...))
	}
}

func (p *play) claim(right bool, what, format string, args ...any) {
	if p.err == nil {
		p.teller.Claim(right, what, fmt.Sprintf(format, args...))
	}
}

// machine returns one of the machines, which the table counts from 1.
func (p *play) machine(number int) *machines.Machine { return p.stage.Network.Machines[number-1] }

// enter has somebody come on stage.
func (p *play) enter(who Person, number int) *player {
	m := p.machine(number)
	if p.err != nil {
		return &player{Person: who, on: m}
	}
	start := p.stage.Start
	if start == nil {
		start = actor.OnMachine
	}
	a, err := start(p.ctx, m, who.IDs, token.CapSetuid, token.CapSetgid)
	if err != nil {
		p.err = err
		return &player{Person: who, on: m}
	}
	pl := &player{Actor: a, Person: who, on: m}
	p.players = append(p.players, pl)
	return pl
}

// serve has somebody come on stage and listen on a pipe that other machines have too.
func (p *play) serve(who Person, number int, more ...func(*actor.Order)) *player {
	pl := p.enter(who, number)
	if p.err != nil {
		return pl
	}
	s, err := newService(pl.on, fmt.Sprintf("%s%d", who.Account, p.stage.plays), who.IDs)
	if err != nil {
		p.fail("making a place for the pipe of %s: %w", who, err)
		return pl
	}
	p.ready, pl.service = append(p.ready, s), s
	o := actor.Order{Act: actor.Listen, Pipe: s.path(), Network: &actor.Network{Name: s.name, Path: s.socket()}}
	for _, change := range more {
		change(&o)
	}
	p.does(pl, o)
	return pl
}

// login has somebody get a ticket on a machine.
func (p *play) login(who Person, number int) {
	if p.err != nil {
		return
	}
	m := p.machine(number)
	if err := m.Login(p.ctx, who.Account, 0); err != nil {
		p.err = err
		return
	}
	p.logins = append(p.logins, login{who, m})
}

func (p *play) does(who *player, o actor.Order) actor.Answer {
	if p.err != nil {
		return actor.Answer{}
	}
	a, err := who.Do(o)
	if err != nil {
		p.fail("%s on %s was to %s: %w", who.Person, who.on.Name, o.Act, err)
	}
	return a
}

// dial is what has client open server's pipe: by its path on the same machine, else by its name.
func (p *play) dial(client, server *player, qos guise.QoS, more ...func(*actor.Order)) actor.Order {
	o := actor.Order{Act: actor.Dial, Pipe: server.service.path(), Conn: server.Name, QoS: &qos, Patience: within}
	if client.on != server.on {
		o.Pipe, o.Encrypt = server.service.remote(), p.kind.Encrypt
	}
	for _, change := range more {
		change(&o)
	}
	return o
}

// byPassword has a call go out with somebody's password if the play is of that kind.
func (p *play) byPassword(who Person) func(*actor.Order) {
	return func(o *actor.Order) {
		if p.kind.NTLM {
			o.Password = &actor.Password{Account: who.Account, Secret: who.Password}
		}
	}
}

// connect has client open server's pipe, and server accept.
func (p *play) connect(client, server *player, qos guise.QoS, more ...func(*actor.Order)) {
	p.does(client, p.dial(client, server, qos, more...))
	p.does(server, actor.Order{Act: actor.Accept, Pipe: server.service.path(), Conn: client.Name, Patience: within})
}

// writes has client write and server read.
func (p *play) writes(client, server *player) {
	p.does(client, actor.Order{Act: actor.Write, Conn: server.Name, Text: "do something for me", Patience: within})
	p.does(server, actor.Order{Act: actor.Read, Conn: client.Name, Patience: within})
}

func (p *play) impersonates(server, client *player) {
	p.does(server, actor.Order{Act: actor.Enter, Conn: client.Name})
}

func (p *play) reverts(server *player) { p.does(server, actor.Order{Act: actor.Leave}) }

// serves has server impersonate client for as long as it takes to prove whom it acts as.
func (p *play) serves(server, client *player, want Person, why string) {
	p.impersonates(server, client)
	p.acts(server, want, why)
	p.reverts(server)
}
