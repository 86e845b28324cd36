package token

import (
	"os/user"
	"strconv"
	"sync"
	"time"
)

const (
	// mostNamed is how many groups of a token are shown by name, and in a text at all: a client may have 65,536.
	mostNamed = 16
	// namesFor is how long a name, or that there is none, is not looked up again.
	namesFor = 10 * time.Second
	// mostNames is how many are kept.
	mostNames = 4096
)

// names are what the account database said of ids. A look-up can take as long as a name service does; who asks meanwhile for the same
// id looks it up as well.
type names struct {
	lookUp func(id string) (string, error)

	mu    sync.Mutex
	known map[uint32]knownName
}

type knownName struct {
	name  string // "" if the id has none
	until time.Time
}

var (
	users = names{lookUp: func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	}}
	groups = names{lookUp: func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	}}
)

// of returns the name of id, "" if it has none or none can be had.
func (n *names) of(id uint32) string {
	n.mu.Lock()
	known, ok := n.known[id]
	n.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return known.name
	}
	name, err := n.lookUp(strconv.FormatUint(uint64(id), 10))
	if err != nil {
		name = ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil || len(n.known) >= mostNames {
		n.known = make(map[uint32]knownName)
	}
	n.known[id] = knownName{name, time.Now().Add(namesFor)}
	return name
}
