package crossing

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/machines"
)

// root is where the plays' files are on each machine: in its /run, which goes with it.
const root = "/run/crossing"

// Stage is some machines with what the plays need.
type Stage struct {
	Network   *machines.Network
	Encrypted bool // smbd requires encryption

	// Start starts an actor; nil is [actor.OnMachine].
	Start func(ctx context.Context, m *machines.Machine, ids actor.IDs, capabilities ...uintptr) (actor.Actor, error)

	plays int
}

// NewStage furnishes machines that have the accounts of [Accounts]: each gets a place where everybody may make files, and a private file
// of each person.
func NewStage(n *machines.Network, encrypted bool) (*Stage, error) {
	s := &Stage{Network: n, Encrypted: encrypted}
	for _, m := range n.Machines {
		if err := furnish(m); err != nil {
			return nil, fmt.Errorf("furnishing %s: %w", m.Name, err)
		}
	}
	return s, nil
}

func furnish(m *machines.Machine) error {
	if err := os.Mkdir(m.Path(root), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(m.Path(made), 0o700); err != nil {
		return err
	}
	if err := os.Chmod(m.Path(made), 0o777|fs.ModeSticky); err != nil {
		return err
	}
	for _, p := range People {
		file := m.Path(private(p))
		if err := os.WriteFile(file, []byte(p.Name), 0o600); err != nil {
			return err
		}
		if err := os.Chown(file, int(p.IDs.UID), int(p.IDs.GID)); err != nil {
			return err
		}
	}
	return nil
}

// made is where everybody may make files.
const made = root + "/made"

func private(p Person) string { return path.Join(root, "private-of-"+p.Account) }

// service is where a server that is not root has a pipe, and what it is called.
type service struct {
	name    string // on the network
	dir     string // the server's
	machine *machines.Machine
}

func (s service) path() string   { return s.dir + "/pipe" }
func (s service) socket() string { return s.dir + "/smbd" }

// remote is the pipe's name on other machines.
func (s service) remote() string { return fmt.Sprintf(`\\%s\pipe\%s`, s.machine.Host, s.name) }

// newService makes the directory of a server's pipe and, as its root does, the link in smbd's directory that leads there.
func newService(m *machines.Machine, name string, owner actor.IDs) (service, error) {
	s := service{name: name, dir: path.Join(root, name), machine: m}
	if err := os.Mkdir(m.Path(s.dir), 0o755); err != nil {
		return s, err
	}
	if err := os.Chown(m.Path(s.dir), int(owner.UID), int(owner.GID)); err != nil {
		return s, err
	}
	return s, os.Symlink(s.socket(), m.Path(m.NP+"/"+name))
}

func (s service) remove() error {
	return errors.Join(os.Remove(s.machine.Path(s.machine.NP+"/"+s.name)), os.RemoveAll(s.machine.Path(s.dir)))
}
