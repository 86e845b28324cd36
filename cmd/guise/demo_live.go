package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/token"
)

// whileTheyAct is the play in which A changes while B and C are in a scope each.
var whileTheyAct = []scene{(*timeline).enterForLong, (*timeline).followA, (*timeline).aGoesMeanwhile, (*timeline).leave}

// inVain is the same with static tracking, in short.
var inVain = []scene{(*timeline).enterForLong, (*timeline).aChangesInVain, (*timeline).leave}

const liveText = `
LIVE: whom B and C act as changes under their feet

B is in one scope for A, and in it has opened C's pipe; C is in one scope for whom B acts as. Neither leaves it. While A changes,
both sleep in a system call that has nothing to do with pipes: nobody reads, writes, opens or enters anything. Then each makes a
file and tries everybody's, as before. (The µs are from A's system call until that thread woke up as somebody else; no claim.)
`

// live shows what is new in a scope while it lasts. cannot is why scopes do not follow on this machine, nil if they do.
func live(claims *claims, interrupted <-chan os.Signal, casts []cast, cannot error) error {
	fmt.Fprint(claims.out, liveText)
	if cannot != nil {
		fmt.Fprintf(claims.out, "\nThis can't be shown here, where a scope follows its client only when it is entered the next time: %v\n", cannot)
		return nil
	}
	for _, cast := range casts {
		for _, part := range []struct {
			version version
			scenes  []scene
		}{
			{version{guise.Dynamic, true}, whileTheyAct}, {version{guise.Dynamic, false}, whileTheyAct}, {version{guise.Static, true}, inVain},
		} {
			fmt.Fprintf(claims.out, "\n%s; %s\n", cast.title, part.version)
			if err := play(claims, interrupted, cast, part.version, part.scenes); err != nil {
				return err
			}
		}
	}
	return nil
}

func liveSummary(cannot error) string {
	if cannot != nil {
		return ""
	}
	return "  live      that is so while a server is in the middle of something, too: its thread's rights change with A's, forth and back\n"
}

func (p *timeline) enterForLong() {
	p.b.does(actor.Order{Act: actor.Listen, Pipe: p.pipe(personB), Tracking: p.listenerTracking()})
	p.c.does(actor.Order{Act: actor.Listen, Pipe: p.pipe(personC), Tracking: p.listenerTracking()})
	p.connect(p.a, p.b, "B", "A")
	p.say(p.a, "B", p.b, "A")
	p.impersonate(p.b, "A")
	p.connect(p.b, p.c, "C", "B")
	p.say(p.b, "C", p.c, "B")
	p.impersonate(p.c, "B")
	p.row("", "", "its new file is", "it could open", "but not", "")
}

func (p *timeline) leave() {
	p.revert(p.c)
	p.revert(p.b)
}

func (p *timeline) followA() {
	p.proveLive(personA, nil, fmt.Sprintf("A is %s", personA), "")
	p.proveLive(personA2, p.follow(personA2, arrivesWithin), fmt.Sprintf("A becomes %s", personA2), "")
	p.proveLive(personA, p.follow(personA, arrivesWithin), fmt.Sprintf("A becomes %s", personA), "again")
	p.proveVia(personA)
}

func (p *timeline) aGoesMeanwhile() {
	took := p.follow(personA2, arrivesWithin)
	p.a.does(actor.Order{Act: actor.Close, Conn: "B"})
	if p.a.err == nil {
		p.a.err = p.leaveStage(p.a)
	}
	if p.a.err != nil || p.b.err != nil {
		return // nobody may wait for the end of what has not ended
	}
	// B has to have seen A's end before it shows that this changed nothing.
	if _, err := p.b.Do(actor.Order{Act: actor.Read, Conn: "A"}); !errors.Is(err, io.EOF) {
		p.b.err = fmt.Errorf("%s was to read to the end of what A wrote, and the end did not come: it got %w", p.b.person, err)
		return
	}
	p.proveLive(personA2, took, fmt.Sprintf("A becomes %s,", personA2), "closes and goes away")
}

// vain is how long a change that is not to come is waited for: many times what others take.
const vain = 100 * time.Millisecond

func (p *timeline) aChangesInVain() {
	p.follow(personA2, vain)
	p.proveLive(personA, nil, fmt.Sprintf("A became %s", personA2), fmt.Sprintf("%v ago", vain))
}

// follow has A change while B and C, in their scopes, sleep until they are as A. It returns how long each took.
func (p *timeline) follow(to person, patience time.Duration) []string {
	if p.late { // so will this be, and nobody is to wait for minutes
		patience = min(patience, vain)
	}
	servers := []*player{p.b, p.c}
	for _, server := range servers {
		server.does(actor.Order{Act: actor.Watch, IDs: to.ids, Patience: patience})
	}
	changed := p.a.does(actor.Order{Act: actor.Become, IDs: to.ids}).At
	var took []string
	for _, server := range servers {
		came := server.does(actor.Order{Act: actor.Watched}).At
		if came == 0 {
			p.late = true
			took = append(took, fmt.Sprintf("had not come after %v", patience))
			continue
		}
		took = append(took, fmt.Sprintf("%d µs", time.Duration(came-changed).Microseconds()))
	}
	return took
}

// proveLive compares what the kernel makes of B and of C with the claim that they act as want. The event has a line for each.
func (p *timeline) proveLive(want person, took []string, event ...string) {
	for i, server := range []*player{p.b, p.c} {
		a := p.act(server)
		if server.err != nil {
			return
		}
		end := p.verdict(a.as(want))
		if took != nil {
			end += ", " + took[i]
		}
		p.row(event[i], server.person.name, nameOf(a.owner)+"'s", list(a.opened), list(a.denied), end)
	}
}

func (p *timeline) row(event, who, owner, opened, denied, end string) {
	p.narrate("%-20s   %-1s  %-15s  %-13s  %-14s   %s", event, who, owner, opened, denied, end)
}

// proveVia compares whom C's token is of, and which way it says that it came, with the processes that the kernel shows.
func (p *timeline) proveVia(who person) {
	says := p.c.does(actor.Order{Act: actor.Token})
	if p.c.err != nil {
		return
	}
	right := says.Context.UID == who.ids.UID && len(says.Via) == 2
	p.narrate("  C's token is of %s, and tells its way here:", nameOf(says.Context))
	for i, on := range []*player{p.a, p.b} {
		shown, err := hopOf(on.PID())
		if err != nil {
			on.err = fmt.Errorf("looking at the process of %s: %w", on.person, err)
			return
		}
		hop, program := token.Hop{}, "program unknown"
		if i < len(says.Via) {
			hop = says.Via[i]
		}
		if hop.Program != "" {
			program = hop.Program
		} else if on.PID() != p.c.PID() {
			// Which program a process of another user runs is shown to those who hold CAP_SYS_PTRACE.
			shown.Program, program = "", "its program is not for B and C to see"
		}
		right = right && hop == shown
		text := fmt.Sprintf("    %s process %d, uid %d, %s", []string{"from A:", "via B: "}[i], hop.PID, hop.UID, program)
		if i == 1 {
			text += "   " + p.verdict(right)
		}
		p.narrate("%s", text)
	}
}
