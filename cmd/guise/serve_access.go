package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/spf13/pflag"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// access says who is let in, besides the socket's mode.
type access struct {
	group    string   // the socket's
	required []string // a client has to be in one of them

	gids atomic.Pointer[[]uint32] // of required
}

func (a *access) add(flags *pflag.FlagSet) {
	flags.StringVar(&a.group, "group", "", "who may connect: the socket's `GROUP`, by name or number, and nobody else unless --mode says so (unstated: the server's group)")
	flags.StringArrayVar(&a.required, "require-group", nil, "who may connect: clients in this `GROUP` alone; more than once, in one of these")
}

// check returns an error for a group without a name, which would let everybody in.
func (a *access) check(flags *pflag.FlagSet) error {
	if flags.Changed("group") && a.group == "" || slices.Contains(a.required, "") {
		return errors.New("--group and --require-group take a group's name or number, and this one is empty")
	}
	return nil
}

// mode returns the socket's: with a group of its own it is for that group unless something else is stated.
func (a *access) mode(stated modeFlag) fs.FileMode {
	if stated == 0 && a.group != "" {
		return 0o660
	}
	return fs.FileMode(stated)
}

var errNoGroup = errors.New("there is no such group")

// groupID understands a group's name or number.
func groupID(group string) (uint32, error) {
	found, err := user.LookupGroup(group)
	text := group
	var unknown user.UnknownGroupError
	switch {
	case err == nil:
		text = found.Gid
	case errors.As(err, &unknown):
		err = errNoGroup
	}
	gid, numeric := strconv.ParseUint(text, 10, 32)
	if numeric != nil || gid == 1<<32-1 {
		if err == nil {
			err = errNoGroup
		}
		return 0, fmt.Errorf("group %q: %w", group, err)
	}
	return uint32(gid), nil
}

// groups are what the names of access stand for.
type groups struct {
	socket   uint32 // if it is to have one
	required []uint32
}

// lookUp looks the groups up.
func (a *access) lookUp() (*groups, error) {
	g := &groups{required: make([]uint32, len(a.required))}
	var err error
	if a.group != "" {
		if g.socket, err = groupID(a.group); err != nil {
			return nil, fmt.Errorf("--group: %w", err)
		}
	}
	for i, group := range a.required {
		if g.required[i], err = groupID(group); err != nil {
			return nil, fmt.Errorf("--require-group: %w", err)
		}
	}
	return g, nil
}

// use has clients that come from now on asked about these groups.
func (a *access) use(g *groups) { a.gids.Store(&g.required) }

// allow returns an error for a client that is in none of the groups.
func (a *access) allow(client *token.Token) error {
	gids := *a.gids.Load()
	for _, gid := range gids {
		if client.HasGroup(gid) {
			return nil
		}
	}
	if len(gids) == 0 {
		return nil
	}
	return fmt.Errorf("it is not in the group %s (--require-group)", strings.Join(a.required, " or "))
}

// mayRunAs returns an error for a client as whom no command can run, whatever it allows. That would show later, too; but by then
// there is no way left to tell guise's own clients, to whom it would look as if the command had ended.
func mayRunAs(client *token.Token) error {
	if err := client.Wearable(); err != nil {
		return err
	}
	if self, err := token.Self(); err == nil && client.SameIDs(self) {
		return nil
	}
	able, err := canActAsOthers()
	switch {
	case err != nil:
		return err
	case !able:
		return fmt.Errorf("uid %d is not the server's own: %w", client.UID(), guise.ErrPrivilege)
	case client.UID() == 0 && os.Geteuid() != 0:
		return fmt.Errorf("a server that is not root never acts as uid 0: %w", guise.ErrPrivilege)
	}
	return nil
}
