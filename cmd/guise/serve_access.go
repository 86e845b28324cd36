package main

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/spf13/pflag"

	"github.com/guise-project/guise/token"
)

// access says who is let in, besides the socket's mode.
type access struct {
	group    string   // the socket's
	required []string // a client has to be in one of them

	gids atomic.Pointer[[]uint32] // of required
}

func (a *access) add(flags *pflag.FlagSet) {
	flags.StringVar(&a.group, "group", "", "who may connect: the socket's `GROUP`, by name or number (unstated: the server's)")
	flags.StringArrayVar(&a.required, "require-group", nil, "who may connect: clients in this `GROUP` alone; more than once, in one of these")
}

// check returns an error for a group without a name, which would let everybody in.
func (a *access) check(flags *pflag.FlagSet) error {
	if flags.Changed("group") && a.group == "" || slices.Contains(a.required, "") {
		return errors.New("--group and --require-group take a group's name or number, and this one is empty")
	}
	return nil
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

// lookUp looks the groups up. If one is not there, all stays as it was.
func (a *access) lookUp() error {
	if a.group != "" {
		if _, err := groupID(a.group); err != nil {
			return fmt.Errorf("--group: %w", err)
		}
	}
	gids := make([]uint32, len(a.required))
	for i, group := range a.required {
		var err error
		if gids[i], err = groupID(group); err != nil {
			return fmt.Errorf("--require-group: %w", err)
		}
	}
	a.gids.Store(&gids)
	return nil
}

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
