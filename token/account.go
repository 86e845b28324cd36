package token

import (
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// Lookup returns the token of an account by its name, or by its uid in decimal where no account has that name. Its groups
// are those that initgroups(3) would set, the primary one among them. With cgo the system's name service answers, without it
// /etc/passwd and /etc/group do. A token of uid 0 has all of the server's capabilities.
func Lookup(account string) (*Token, error) {
	if strings.ContainsRune(account, 0) {
		// The C library would look up what is before it.
		return nil, fmt.Errorf("looking up account %q: a name has no NUL byte in it", account)
	}
	u, err := user.Lookup(account)
	if err != nil {
		if _, numeric := strconv.ParseUint(account, 10, 32); numeric == nil {
			u, err = user.LookupId(account)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("looking up account %q: %w", account, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("account %q: uid %q is no number: %w", account, u.Uid, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("account %q: gid %q is no number: %w", account, u.Gid, err)
	}
	list, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("account %q: reading its groups: %w", account, err)
	}
	groups := make([]uint32, 0, len(list)+1)
	groups = append(groups, uint32(gid))
	for _, s := range list {
		g, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("account %q: group %q is no number: %w", account, s, err)
		}
		groups = append(groups, uint32(g))
	}
	return FromIDs(uint32(uid), uint32(gid), groups)
}

// FromIDs returns the token of the given ids, for services whose accounts are numbers. It is what the caller says, and
// proves nothing about a client. As the kernel does, it sorts the groups; it also drops what is in there twice.
func FromIDs(uid, gid uint32, groups []uint32) (*Token, error) {
	groups = slices.Clone(groups)
	slices.Sort(groups)
	groups = slices.Compact(groups)
	if uid == invalidID || gid == invalidID || slices.Contains(groups, invalidID) {
		return nil, fmt.Errorf("%w: 4294967295 is no id: to setresuid(2) it means \"unchanged\"", ErrNotWearable)
	}
	t := &Token{
		uid: uid, gid: gid, groups: groups,
		seen: AllCapabilities, claimed: AllCapabilities,
		source: Source{Kind: FromAccount},
	}
	t.obstacle = t.unreported()
	return t, nil
}
