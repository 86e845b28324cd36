package crossing

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/machines"
	"github.com/guise-project/guise/internal/machinestest"
	"github.com/guise-project/guise/smb"
)

// fails claims that a call fails with an error, within a time.
func (p *play) fails(client, server *player, want error, most time.Duration, what string, more ...func(*actor.Order)) {
	begun := time.Now()
	p.refused(client, p.dial(client, server, unstated, more...), want, what)
	took := time.Since(begun)
	p.claim(took < most, "that is known at once or when time is up", "after %v", took.Round(time.Millisecond))
}

// slack is what a busy machine may take besides the timeout that somebody has.
const slack = 10 * time.Second

// comesThrough claims that A's call to B is served, as A.
func (p *play) comesThrough(a, b *player) {
	p.connect(a, b, unstated)
	p.writes(a, b)
	p.serves(b, a, A, "")
	p.does(a, actor.Order{Act: actor.Close, Conn: b.Name})
	p.does(b, actor.Order{Act: actor.Close, Conn: a.Name})
}

// later is an order that is carried out while others are.
func later(who *player, o actor.Order) func() (actor.Answer, time.Duration, error) {
	type result struct {
		answer actor.Answer
		err    error
		took   time.Duration
	}
	done := make(chan result, 1)
	begun := time.Now()
	go func() {
		answer, err := who.Do(o)
		done <- result{answer, err, time.Since(begun)}
	}()
	return func() (actor.Answer, time.Duration, error) {
		r := <-done
		return r.answer, r.took, r.err
	}
}

// TestCutCable cuts the cable of the client's machine while the server is in a scope and the client waits for it.
func TestCutCable(t *testing.T) {
	stage := newStage(t, machines.Config{Sign: true})
	playing(t, stage, Variant{}, func(p *play) {
		a, b := p.enter(A, 1), p.serve(B, 3)
		p.login(A, 1)
		p.connect(a, b, unstated)
		p.writes(a, b)
		p.impersonates(b, a)
		cable := func(mended bool) {
			if err := a.on.SetLink(mended); err != nil && p.err == nil {
				p.err = err
			}
		}

		const patience = 2 * time.Second
		p.tell("The cable is cut while B is in its scope. Both wait for each other, with a timeout.")
		cable(false)
		answer := later(a, actor.Order{Act: actor.Read, Conn: b.Name, Patience: patience})
		request := later(b, actor.Order{Act: actor.Read, Conn: a.Name, Patience: patience})
		for who, wait := range map[*player]func() (actor.Answer, time.Duration, error){a: answer, b: request} {
			_, took, err := wait()
			p.claim(errors.Is(err, os.ErrDeadlineExceeded) && took < patience+slack, who.Name+"'s read ends", "after %v: %v", took.Round(time.Millisecond), err)
		}
		p.acts(b, A, ", in the scope that it is in,")
		p.fails(a, b, smb.ErrUnreachable, patience+slack, "another call of A's", func(o *actor.Order) { o.Patience = patience })
		p.does(b, actor.Order{Act: actor.Write, Conn: a.Name, Text: "late", Patience: within})

		p.tell("The cable is mended.")
		cable(true)
		got := p.does(a, actor.Order{Act: actor.Read, Conn: b.Name, Patience: within}).Text
		p.claim(got == "late", "what B wrote meanwhile arrives", "%q", got)
		p.writes(a, b)
		p.acts(b, A, " still")

		p.tell("The cable is cut again, and A waits without a timeout of its own; what A writes does not arrive.")
		cable(false)
		p.does(a, actor.Order{Act: actor.Write, Conn: b.Name, Text: "lost", Patience: within})
		_, took, err := later(a, actor.Order{Act: actor.Read, Conn: b.Name})()
		p.claim(errors.Is(err, smb.ErrCut) && took < 30*time.Second+slack, "A's read ends", "after %v: %v", took.Round(time.Millisecond), err)
		_, took, err = later(a, actor.Order{Act: actor.Write, Conn: b.Name, Text: "x", Patience: within})()
		p.claim(err != nil && took < slack, "A's next write fails", "%v", err)
		_, took, err = later(b, actor.Order{Act: actor.Read, Conn: a.Name, Patience: patience})()
		p.claim(err != nil && took < patience+slack, "B's read ends", "after %v: %v", took.Round(time.Millisecond), err)
		p.acts(b, A, ", in the scope that it is in,")
		p.reverts(b)
		p.does(b, actor.Order{Act: actor.Close, Conn: a.Name})
		p.does(a, actor.Order{Act: actor.Close, Conn: b.Name})
		cable(true)
		p.tell("The cable is mended, and A calls again.")
		p.comesThrough(a, b)
	})
}

// TestExpiredTicket has a ticket expire, also under a connection that is open.
func TestExpiredTicket(t *testing.T) {
	stage := newStage(t, machines.Config{Sign: true})
	playing(t, stage, Variant{}, func(p *play) {
		a, b := p.enter(A, 1), p.serve(B, 3)
		// Where the machine is so busy that the ticket has expired before it is used, a longer one.
		for lifetime := 5 * time.Second; ; lifetime *= 2 {
			if err := a.on.Login(p.ctx, A.Account, lifetime); err != nil {
				p.fail("%w", err)
				return
			}
			_, err := a.Do(p.dial(a, b, unstated))
			if err == nil {
				break
			}
			if !errors.Is(err, smb.ErrTicketExpired) || lifetime > 30*time.Second {
				p.fail("%w", err)
				return
			}
		}
		p.does(b, actor.Order{Act: actor.Accept, Pipe: b.service.path(), Conn: a.Name, Patience: within})
		p.writes(a, b)
		p.serves(b, a, A, "")
		until(t, func() error {
			// klist -s succeeds as long as there is a ticket that has not expired.
			if a.on.CommandAs(p.ctx, A.Account, "klist", "-s").Run() == nil {
				return errors.New("the ticket has not expired")
			}
			return nil
		})
		p.fails(a, b, smb.ErrTicketExpired, slack, "A's call with a ticket that has expired")
		p.tell("On the connection that was opened before, A writes once more, and is served, or told why not.")
		_, wrote := a.Do(actor.Order{Act: actor.Write, Conn: b.Name, Text: "x", Patience: 5 * time.Second})
		_, read := b.Do(actor.Order{Act: actor.Read, Conn: a.Name, Patience: 5 * time.Second})
		if wrote == nil && read == nil {
			p.tell("It is served.")
			p.serves(b, a, A, " still")
		} else {
			_, err := a.Do(actor.Order{Act: actor.Read, Conn: b.Name, Patience: 5 * time.Second})
			p.claim(err != nil && err != io.EOF, "A is told", "writing: %v; reading: %v; the server's reading: %v", wrote, err, read)
		}
		p.does(a, actor.Order{Act: actor.Close, Conn: b.Name})
		p.does(b, actor.Order{Act: actor.Close, Conn: a.Name})
		p.login(A, 1)
		p.comesThrough(a, b)
	})
}

// TestAccountsThatAreNotLetIn has wrong passwords, and accounts that there are not.
func TestAccountsThatAreNotLetIn(t *testing.T) {
	stage := newStage(t, machines.Config{Sign: true})
	playing(t, stage, Variant{}, func(p *play) {
		a, b := p.enter(A, 1), p.serve(B, 3)
		before := p.callsOf(b.on)
		for _, password := range []actor.Password{{Account: A.Account, Secret: "not of alice"}, {Account: "zacharias", Secret: "of zacharias"}} {
			p.fails(a, b, smb.ErrLogon, slack, "A's call with the password of "+password.Account, func(o *actor.Order) { o.Password = &password })
		}
		p.fails(a, b, smb.ErrNoTicket, slack, "A's call without a ticket")
		p.tell("Another's ticket lies where A's would.")
		p.login(A2, 1)
		if err := os.Rename(a.on.Path(cacheOf(A2)), a.on.Path(cacheOf(A))); err != nil {
			p.fail("%w", err)
		}
		p.fails(a, b, smb.ErrNoTicket, slack, "A's call with a ticket that lies there and is another's")
		_, accounts := before.since(p)
		p.claim(strings.Join(accounts, " ") == "alice zacharias", "smbd has heard of these alone", "%v", accounts)

		p.tell("The KDC knows A2, and machine 3 does not any more.")
		p.login(A2, 1)
		passwd := b.on.Path("/etc/passwd")
		old, err := os.ReadFile(passwd)
		if err == nil {
			err = os.WriteFile(passwd, []byte(strings.ReplaceAll(string(old), A2.Account+":", "other:")), 0o644)
		}
		if err != nil {
			p.fail("%w", err)
		}
		a2 := p.enter(A2, 1)
		p.fails(a2, b, smb.ErrLogon, slack, "A2's call")
		p.tell("Nothing of this has kept B from its clients.")
		if err := a.on.Logout(A.Account); err != nil {
			p.fail("%w", err)
		}
		p.login(A, 1)
		p.comesThrough(a, b)
	})
}

func cacheOf(who Person) string { return fmt.Sprintf("/tmp/krb5cc_%d", who.IDs.UID) }

// TestMissingPipes has pipes that there are not, and that nobody serves any more.
func TestMissingPipes(t *testing.T) {
	stage := newStage(t, machines.Config{Sign: true})
	gone := newDaemon(t, stage.Network.Machines[2])
	playing(t, stage, Variant{}, func(p *play) {
		a, b := p.enter(A, 1), p.serve(B, 3)
		p.login(A, 1)
		to := func(name string) func(*actor.Order) {
			return func(o *actor.Order) { o.Pipe = name }
		}
		p.fails(a, b, guise.ErrNoPipe, slack, "A's call to a pipe that was never there", to(`\\`+b.on.Host+`\pipe\nothing`))
		gone.stop(syscall.SIGKILL)
		p.fails(a, b, guise.ErrNobodyListens, slack, "A's call to a pipe whose server was killed", to(gone.remote()))
		gone.start()
		gone.stop(syscall.SIGTERM)
		p.fails(a, b, guise.ErrNoPipe, slack, "A's call to a pipe whose server has ended", to(gone.remote()))
		there := to(`\\machine9.guise.test\pipe\nothing`)
		p.fails(a, b, smb.ErrPrincipal, slack, "A's call to a machine that the KDC does not know", there)
		p.fails(a, b, smb.ErrUnreachable, slack, "A's call with a password to a machine that there is not", there, func(o *actor.Order) {
			o.Password = &actor.Password{Account: A.Account, Secret: A.Password}
		})
		if err := b.on.StopSamba(); err != nil {
			p.fail("%w", err)
		}
		p.fails(a, b, smb.ErrUnreachable, slack, "A's call to a machine without smbd")
		if err := b.on.StartSamba(p.ctx); err != nil {
			p.fail("%w", err)
		}
		p.comesThrough(a, b)
	})
}

// TestKDCThatIsStoppedOrWrong has clients that have a ticket for the KDC and none for the server.
func TestKDCThatIsStoppedOrWrong(t *testing.T) {
	stage := newStage(t, machines.Config{Sign: true})
	if _, err := exec.LookPath("faketime"); err != nil {
		machinestest.Missing(t, err)
	}
	playing(t, stage, Variant{}, func(p *play) {
		a, b := p.enter(A, 1), p.serve(B, 3)
		p.login(A, 1)
		p.connect(a, b, unstated)
		if err := stage.Network.StopKDC(); err != nil {
			p.fail("%w", err)
		}
		p.fails(a, b, smb.ErrNoKDC, 15*time.Second+slack, "A's call without a KDC", func(o *actor.Order) { o.Patience = 15 * time.Second })
		p.tell("A connection that is open needs none.")
		p.writes(a, b)
		p.serves(b, a, A, "")
		p.does(a, actor.Order{Act: actor.Close, Conn: b.Name})
		p.does(b, actor.Order{Act: actor.Close, Conn: a.Name})
		for _, off := range []time.Duration{-2 * time.Hour, 2 * time.Hour, 0} {
			if err := stage.Network.SkewKDC(p.ctx, off); err != nil {
				p.fail("%w", err)
			}
			if off != 0 {
				p.fails(a, b, smb.ErrClock, slack, fmt.Sprintf("A's call with a KDC whose clock is off by %v", off))
			}
		}
		p.comesThrough(a, b)
	})
}

// TestCallInScopeNeverGoesOutAsTheServer has a server with a ticket of its own act as a client without one.
func TestCallInScopeNeverGoesOutAsTheServer(t *testing.T) {
	stage := newStage(t, machines.Config{Sign: true})
	playing(t, stage, Variant{}, func(p *play) {
		a, b, c := p.enter(A, 1), p.serve(B, 1), p.serve(C, 2)
		p.login(B, 1)
		p.connect(a, b, dynamic)
		p.writes(a, b)
		before := p.callsOf(c.on)
		p.impersonates(b, a)
		p.fails(b, c, smb.ErrNoTicket, slack, "B's call as A, who has no ticket")
		p.fails(b, c, smb.ErrNotClients, slack, "B's call as A with its own password", func(o *actor.Order) {
			o.Password = &actor.Password{Account: B.Account, Secret: B.Password}
		})
		p.reverts(b)
		p.silent(before)
		p.connect(b, c, dynamic)
		p.heardOnly(before, B, ", outside of its scope")
		p.writes(b, c)
		p.serves(c, b, B, "")
	})
}
