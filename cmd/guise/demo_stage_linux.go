package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/token"
)

// person is somebody with ids and a private file.
type person struct {
	name string
	ids  actor.IDs
}

var (
	personA  = person{"A", actor.IDs{UID: 61001, GID: 61001, Groups: []uint32{61101}}}
	personA2 = person{"A2", actor.IDs{UID: 61002, GID: 61002, Groups: []uint32{61102}}}
	personB  = person{"B", actor.IDs{UID: 61010, GID: 61010}}
	personC  = person{"C", actor.IDs{UID: 61020, GID: 61020}}
	people   = []person{personA, personA2, personB, personC}
)

func (p person) String() string { return fmt.Sprintf("%s(%d)", p.name, p.ids.UID) }

// cast is how A, B and C are played.
type cast struct {
	title string
	start func(actor.IDs, ...uintptr) (actor.Actor, error)
}

// casts returns those that were asked for, all if none was.
func casts(processes, threads bool) []cast {
	var chosen []cast
	if processes || !threads {
		chosen = append(chosen, cast{"A, B and C are three processes", actor.Process})
	}
	if threads || !processes {
		chosen = append(chosen, cast{"A, B and C are three goroutines of one process", actor.Goroutine})
	}
	return chosen
}

// claims counts what was claimed, and what the kernel showed otherwise.
type claims struct {
	out        io.Writer
	all, wrong int
}

// demoStage is the directory that a play happens in, and who is on it.
type demoStage struct {
	*claims
	dir    string
	files  int
	actors []actor.Actor
}

func newDemoStage(c *claims) (*demoStage, error) {
	dir, err := os.MkdirTemp("", "guise-demo-")
	if err != nil {
		return nil, err
	}
	s := &demoStage{claims: c, dir: dir}
	if err := s.furnish(); err != nil {
		s.clear()
		return nil, err
	}
	return s, nil
}

// furnish makes a place where everybody may make files, a private file of each person, and a directory of B's and of C's for
// their pipes.
func (s *demoStage) furnish() error {
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	made := filepath.Join(s.dir, "made")
	if err := os.Mkdir(made, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(made, 0o777|fs.ModeSticky); err != nil {
		return err
	}
	for _, p := range people {
		file := s.private(p)
		if err := os.WriteFile(file, []byte(p.name), 0o600); err != nil {
			return err
		}
		if err := os.Chown(file, int(p.ids.UID), int(p.ids.GID)); err != nil {
			return err
		}
	}
	for _, p := range []person{personB, personC} {
		dir := filepath.Dir(s.pipe(p))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chown(dir, int(p.ids.UID), int(p.ids.GID)); err != nil {
			return err
		}
	}
	return nil
}

func (s *demoStage) private(p person) string { return filepath.Join(s.dir, "private-of-"+p.name) }
func (s *demoStage) pipe(p person) string    { return filepath.Join(s.dir, "pipe-of-"+p.name, "pipe") }

// clear ends the actors and removes everything.
func (s *demoStage) clear() error {
	var errs []error
	for _, a := range s.actors {
		errs = append(errs, a.Stop())
	}
	errs = append(errs, os.RemoveAll(s.dir))
	return errors.Join(errs...)
}

// player is an actor on the stage. After the first order that fails it does nothing more; err says what went wrong.
type player struct {
	actor.Actor
	person person
	err    error
}

func (s *demoStage) enter(c cast, p person) (*player, error) {
	a, err := c.start(p.ids, token.CapSetuid, token.CapSetgid)
	if err != nil {
		return nil, err
	}
	s.actors = append(s.actors, a)
	return &player{Actor: a, person: p}, nil
}

// leaveStage ends a player.
func (s *demoStage) leaveStage(p *player) error {
	s.actors = slices.DeleteFunc(s.actors, func(a actor.Actor) bool { return a == p.Actor })
	return p.Stop()
}

func (p *player) does(o actor.Order) {
	if p.err != nil {
		return
	}
	if _, err := p.Do(o); err != nil {
		p.err = fmt.Errorf("%s was to %s: %w", p.person, o.Act, err)
	}
}

// narrate prints one step of the timeline.
func (s *demoStage) narrate(format string, args ...any) {
	fmt.Fprintln(s.out, strings.TrimRight(fmt.Sprintf("  "+format, args...), " "))
}

// prove has a server, which is in a scope, make a file and try to read everybody's private file, and compares what the kernel
// made of it with the claim that it acts as want. Nothing that the server says of itself counts.
func (s *demoStage) prove(p *player, want person, why string) {
	if p.err != nil {
		return
	}
	s.files++
	path := filepath.Join(s.dir, "made", fmt.Sprintf("%s-%d", p.person.name, s.files))
	if _, err := p.Do(actor.Order{Act: actor.Create, Path: path}); err != nil {
		p.err = fmt.Errorf("%s was to make a file: %w", p.person, err)
		return
	}
	owner := actor.IDs{}
	var err error
	if owner.UID, owner.GID, err = fileIDs(path); err != nil {
		p.err = err
		return
	}
	var opened, denied []string
	right := owner.UID == want.ids.UID && owner.GID == want.ids.GID
	for _, other := range people {
		_, err := p.Do(actor.Order{Act: actor.Open, Path: s.private(other)})
		switch {
		case err == nil:
			opened = append(opened, other.name)
		case errors.Is(err, fs.ErrPermission):
			denied = append(denied, other.name)
		default:
			p.err = err
			return
		}
		right = right && (err == nil) == (other.name == want.name)
	}
	s.all++
	verdict := "as claimed"
	if !right {
		s.wrong++
		verdict = "NOT AS CLAIMED"
	}
	s.narrate("    %s acts as %-10s %s", p.person.name, want, why)
	s.narrate("        its new file belongs to %s; of the private files it could open %s, not %s   %s",
		nameOf(owner), list(opened), list(denied), verdict)
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
