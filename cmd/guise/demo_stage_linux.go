package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

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

func (p *player) does(o actor.Order) actor.Answer {
	if p.err != nil {
		return actor.Answer{}
	}
	a, err := p.Do(o)
	if err != nil {
		p.err = fmt.Errorf("%s was to %s: %w", p.person, o.Act, err)
	}
	return a
}
