package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/guise-project/guise/internal/actor"
)

// claims counts what was claimed, and what the kernel showed otherwise.
type claims struct {
	out        io.Writer
	all, wrong int
}

// verdict counts one claim.
func (c *claims) verdict(right bool) string {
	c.all++
	if right {
		return "as claimed"
	}
	c.wrong++
	return "NOT AS CLAIMED"
}

// narrate prints one step.
func (c *claims) narrate(format string, args ...any) {
	fmt.Fprintln(c.out, strings.TrimRight(fmt.Sprintf("  "+format, args...), " "))
}

// acted is what the kernel made of what a server did.
type acted struct {
	owner          actor.IDs // of the file that it made
	opened, denied []string  // whose private files it could open, and whose not
}

// as reports whether that is what the kernel makes of what p does.
func (a acted) as(p person) bool {
	return a.owner.UID == p.ids.UID && a.owner.GID == p.ids.GID && slices.Equal(a.opened, []string{p.name})
}

// act has a server make a file and try to read everybody's private file. Nothing that the server says of itself counts.
func (s *demoStage) act(p *player) (a acted) {
	s.files++
	path := filepath.Join(s.dir, "made", fmt.Sprintf("%s-%d", p.person.name, s.files))
	p.does(actor.Order{Act: actor.Create, Path: path})
	if p.err != nil {
		return a
	}
	if a.owner.UID, a.owner.GID, p.err = fileIDs(path); p.err != nil {
		return a
	}
	for _, other := range people {
		_, err := p.Do(actor.Order{Act: actor.Open, Path: s.private(other)})
		switch {
		case err == nil:
			a.opened = append(a.opened, other.name)
		case errors.Is(err, fs.ErrPermission):
			a.denied = append(a.denied, other.name)
		default:
			p.err = err
			return a
		}
	}
	return a
}

// prove compares what the kernel makes of a server, which is in a scope, with the claim that it acts as want.
func (s *demoStage) prove(p *player, want person, why string) {
	a := s.act(p)
	if p.err != nil {
		return
	}
	s.narrate("    %s acts as %-10s %s", p.person.name, want, why)
	s.narrate("        its new file belongs to %s; of the private files it could open %s, not %s   %s",
		nameOf(a.owner), list(a.opened), list(a.denied), s.verdict(a.as(want)))
}

// list names whose files are meant.
func list(names []string) string {
	if len(names) == 0 {
		return "nobody's"
	}
	return strings.Join(names, "'s, ") + "'s"
}

func nameOf(ids actor.IDs) string {
	i := slices.IndexFunc(people, func(p person) bool { return p.ids.UID == ids.UID && p.ids.GID == ids.GID })
	if i < 0 {
		return fmt.Sprintf("uid %d, gid %d", ids.UID, ids.GID)
	}
	return people[i].String()
}
