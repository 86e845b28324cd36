package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/role"
	"github.com/guise-project/guise/token"
)

// identity is one of those whom the server acts as. No two have an id in common.
type identity struct {
	ids    role.IDs
	token  *token.Token
	client *guise.Conn // nil for most
}

// Ids from here on are no accounts' on any machine that this is likely to meet; where they are, nothing is done to them.
const (
	firstUID   = 710_000
	firstGID   = 720_000
	firstGroup = 730_000
)

func makeIdentities(n int) ([]*identity, error) {
	var all []*identity
	for i := range uint32(n) {
		group := firstGroup + 3*i
		ids := role.IDs{UID: firstUID + i, GID: firstGID + i, Groups: []uint32{group, group + 1, group + 2}}
		t, err := token.FromIDs(ids.UID, ids.GID, ids.Groups)
		if err != nil {
			return nil, err
		}
		all = append(all, &identity{ids: ids, token: t})
	}
	return all, nil
}

// connectSome starts a client process for each, and has it connect to a pipe at path; every other one asks for dynamic
// tracking. The function that it returns ends them.
func connectSome(some []*identity, path string) (leave func(), err error) {
	var clients []*role.Process
	leave = func() {
		for _, i := range some {
			if i.client != nil {
				i.client.Close()
			}
		}
		for _, p := range clients {
			if err := p.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, "stress: a client:", err)
			}
		}
	}
	l, err := guise.Listen(path, nil)
	if err != nil {
		return leave, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	for n, i := range some {
		tracking := guise.Static
		if n%2 == 1 {
			tracking = guise.Dynamic
		}
		c, p, err := role.Connect(l, i.ids, tracking)
		if err != nil {
			return leave, err
		}
		clients = append(clients, p)
		i.client = c
	}
	return leave, nil
}
