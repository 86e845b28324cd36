package crossing

import (
	"fmt"

	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/machines"
)

// Person is somebody who has an account on every machine, a Kerberos principal and a private file on each machine.
type Person struct {
	Name     string // as the table calls it
	Account  string
	Password string
	IDs      actor.IDs
}

func (p Person) String() string { return fmt.Sprintf("%s(%s)", p.Name, p.Account) }

// The persons of the plays. A becomes A2 on the way; B, C and D are servers that hold CAP_SETUID and CAP_SETGID and are not root.
var (
	A      = Person{"A", "alice", "of alice", actor.IDs{UID: 61001, GID: 61001, Groups: []uint32{61101}}}
	A2     = Person{"A2", "anna", "of anna", actor.IDs{UID: 61002, GID: 61002, Groups: []uint32{61102}}}
	B      = Person{"B", "berta", "of berta", actor.IDs{UID: 61010, GID: 61010}}
	C      = Person{"C", "carla", "of carla", actor.IDs{UID: 61020, GID: 61020}}
	D      = Person{"D", "dora", "of dora", actor.IDs{UID: 61030, GID: 61030}}
	People = []Person{A, A2, B, C, D}
)

// Accounts are what machines need for the plays.
func Accounts() []machines.Account {
	var all []machines.Account
	for _, p := range People {
		a := machines.Account{Name: p.Account, UID: p.IDs.UID, GID: p.IDs.GID, Password: p.Password}
		for _, g := range p.IDs.Groups {
			a.Groups = append(a.Groups, machines.Group{Name: fmt.Sprintf("group%d", g), GID: g})
		}
		all = append(all, a)
	}
	return all
}

// nameOf returns who has these ids.
func nameOf(ids actor.IDs) string {
	for _, p := range People {
		if p.IDs.UID == ids.UID && p.IDs.GID == ids.GID {
			return p.String()
		}
	}
	return fmt.Sprintf("uid %d, gid %d", ids.UID, ids.GID)
}
