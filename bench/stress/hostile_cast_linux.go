package main

import (
	"path/filepath"

	"github.com/guise-project/guise/bench/internal/role"
)

// Who is there in the run beside hostile users.
const (
	honestUsers  = 8
	hostileUsers = 16
)

// Ids of no accounts. Each user has a few in a row.
const (
	memberGroup   = 740_000 // all but one who is to be refused are in it: guise serve has it for --require-group
	firstHostile  = 741_000
	firstHonest   = 751_000
	idsOfUser     = 10
	firstCrowding = 10_000_000 // groups of who has as many as one can have
	mostGroups    = 65_536     // NGROUPS_MAX
)

// user returns the ids of the nth of those that begin at first: a uid and gid of one number, and two groups.
func user(first, n uint32) role.IDs {
	id := first + n*idsOfUser
	return role.IDs{UID: id, GID: id, Groups: []uint32{memberGroup, id + 1}}
}

func honestUser(n int) role.IDs  { return user(firstHonest, uint32(n)) }
func hostileUser(n int) role.IDs { return user(firstHostile, uint32(n)) }

// isHostile reports whether an id is a hostile user's, who may have three.
func isHostile(uid uint32) bool {
	return uid >= firstHostile && uid < firstHostile+hostileUsers*idsOfUser
}

func isHonest(uid uint32) bool {
	return uid >= firstHonest && uid < firstHonest+honestUsers*idsOfUser
}

// crowded has an id's groups be as many as a process can have. The pipe's group is not among them.
func crowded(ids role.IDs) role.IDs {
	ids.Groups = make([]uint32, mostGroups)
	for i := range ids.Groups {
		ids.Groups[i] = firstCrowding + uint32(i)
	}
	return ids
}

// besieged is what the users of a run are told: where the servers are.
type besieged string

func (b besieged) serve() string   { return filepath.Join(string(b), "serve") }
func (b besieged) library() string { return filepath.Join(string(b), "library") }
func (b besieged) files() string   { return filepath.Join(string(b), "files") }
