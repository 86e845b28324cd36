package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"
)

// Who is there in the run. The first clients have a chain of servers each; every other has a server goroutine, some two.
const (
	clients = 32
	chains  = 4
	hops    = 8
	places  = 64 // server goroutines
	servers = 4  // processes that they are in
)

// second is what a client has a second connection to.
var second = map[int]int{7: places - 4, 8: places - 3, 10: places - 2, 11: places - 1}

// way is how a client changes who it is.
type way int

const (
	oneThread     way = iota // one thread alone, by raw calls, with the capabilities to do so at all times
	oneThreadVia             // one thread alone, as root in between
	allThreads               // all threads, with the capabilities to do so at all times
	allThreadsVia            // all threads, as root in between, whose id it keeps as the saved one
	inScopes                 // nothing of its own: it writes in scopes of others
)

func (w way) String() string {
	return [...]string{"one thread", "one thread, as root in between", "all threads", "all threads, as root in between", "scopes"}[w]
}

// part is what a client does.
type part struct {
	way       way
	recurring bool          // it is one of a few all the time; else never the same twice, so that every state is told from all others
	pace      time.Duration // the longest time between changes
	flood     bool          // it changes as fast as it can, for a while and again
	places    []int         // of its server goroutines; of a chain the first
}

func partOf(client int) part {
	p := part{pace: []time.Duration{800, 80, 400, 40, 200}[client%5] * time.Millisecond, recurring: client/5%2 == 1, way: way(client % 5)}
	if p.way == allThreads || p.way == allThreadsVia {
		p.pace *= 2 // each of its calls interrupts all of its threads
	}
	switch client {
	case 0:
		p = part{way: oneThread, pace: 50 * time.Millisecond}
	case 1:
		p = part{way: allThreadsVia, pace: 60 * time.Millisecond, recurring: true}
	case 2:
		p = part{way: oneThread, flood: true}
	case 3:
		p = part{way: inScopes}
	case 5:
		p = part{way: oneThreadVia, flood: true, recurring: true}
	}
	if client < chains {
		p.places = []int{client * hops}
		return p
	}
	p.places = []int{chains*hops + client - chains}
	if second, ok := second[client]; ok {
		p.places = append(p.places, second)
	}
	return p
}

func (p part) String() string {
	s := p.way.String()
	if p.flood {
		s += ", as fast as it can"
	}
	if p.recurring {
		s += ", the same few again and again"
	}
	return s
}

// serverOf returns the process that a server goroutine is in. Of a chain two neighbours share one.
func serverOf(place int) int {
	if place < chains*hops {
		return (place%hops/2 + place/hops) % servers
	}
	return place % servers
}

// chainOf reports how many servers the chain has that begins at place, 1 where there is none.
func chainOf(place int) int {
	if place < chains*hops {
		return hops
	}
	return 1
}

// Ids of no accounts: a client has a range of its own.
const (
	followedID    = 1_000_000_000
	idsEach       = 50_000_000
	followedGroup = followedID + clients*idsEach // on top of the id
	fewIDs        = 8
)

// nth is the nth identity of a client, whose uid, gid and group belong together.
func nth(client int, n uint32) who {
	id := followedID + uint32(client)*idsEach + n
	return who{id, id, id + clients*idsEach}
}

// next returns another identity than the nth for a client to become.
func (p part) next(client int, n uint32) uint32 {
	if !p.recurring {
		return (n + 1) % idsEach
	}
	return (n + 1 + rand.Uint32N(fewIDs-1)) % fewIDs
}

// paths of what the run has on disk.
type paths string

func (p paths) board() string { return filepath.Join(string(p), "board") }
func (p paths) history(client int) string {
	return filepath.Join(string(p), fmt.Sprint("history", client))
}
func (p paths) pipe(server int) string { return filepath.Join(string(p), fmt.Sprint("pipe", server)) }
func (p paths) files(place int) string { return filepath.Join(string(p), "files", fmt.Sprint(place)) }

// private is a file that one identity may read, and for its group's sake another.
func (p paths) private(client int, n uint32) (uid, group string) {
	path := filepath.Join(string(p), "files", fmt.Sprintf("of-%d-%d", client, n))
	return path, path + "-group"
}

// statesOf is how long a history is: the flood of a client fills it again and again, and it has to go back for as long as an
// operation may be behind.
func statesOf(p part) int {
	if p.flood {
		return 1 << 20
	}
	return 1 << 16
}
