package machines

import (
	"fmt"
	"regexp"
	"strings"
)

// Account is a user that all machines have, with the same ids.
type Account struct {
	Name     string
	UID, GID uint32
	Groups   []Group // further groups
	Password string  // for SMB, and of the Kerberos principal NAME@REALM; "" makes an account that Unix alone knows
}

// Group is a Unix group.
type Group struct {
	Name string
	GID  uint32
}

// The accounts and groups that every machine has: those that Debian's programs expect.
const systemAccounts = "root:x:0:0:root:/root:/bin/sh\n" +
	"daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n" +
	"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"

var systemGroups = []Group{{"root", 0}, {"daemon", 1}, {"tty", 5}, {"shadow", 42}, {"utmp", 43}, {"nogroup", 65534}}

// plain is what a name may be made of: it is written to files, and given to programs, that separate by other characters.
var plain = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)

// checkAccounts returns an error if two accounts or groups are at odds with one another or with the system's.
func checkAccounts(accounts []Account) error {
	names := map[string]bool{"root": true, "daemon": true, "nobody": true}
	uids := map[uint32]bool{0: true, 1: true, 65534: true}
	for _, a := range accounts {
		switch {
		case !plain.MatchString(a.Name):
			return fmt.Errorf("an account can't be named %q: want %s", a.Name, plain)
		case names[a.Name]:
			return fmt.Errorf("there are two accounts named %s", a.Name)
		case uids[a.UID]:
			return fmt.Errorf("account %s can't have uid %d: another account has it", a.Name, a.UID)
		case strings.ContainsAny(a.Password, "\n\r\x00"):
			return fmt.Errorf("the password of account %s has a line break or NUL in it", a.Name)
		}
		names[a.Name], uids[a.UID] = true, true
	}
	_, err := groupsOf(accounts)
	return err
}

// group is a line of /etc/group.
type group struct {
	Group
	members []string
}

// groupsOf returns the system's groups, those that the accounts name, and one of the account's name for each whose primary group nobody names.
func groupsOf(accounts []Account) ([]*group, error) {
	var all []*group
	byID, byName := map[uint32]*group{}, map[string]*group{}
	for _, g := range systemGroups {
		made := &group{Group: g}
		byID[g.GID], byName[g.Name] = made, made
		all = append(all, made)
	}
	add := func(g Group) (*group, error) {
		if !plain.MatchString(g.Name) {
			return nil, fmt.Errorf("a group can't be named %q: want %s", g.Name, plain)
		}
		if known := byID[g.GID]; known != nil && known.Name != g.Name {
			return nil, fmt.Errorf("groups %s and %s have the same gid %d", known.Name, g.Name, g.GID)
		}
		if known := byName[g.Name]; known != nil {
			if known.GID != g.GID {
				return nil, fmt.Errorf("group %s has two gids, %d and %d", g.Name, known.GID, g.GID)
			}
			return known, nil
		}
		made := &group{Group: g}
		byID[g.GID], byName[g.Name] = made, made
		all = append(all, made)
		return made, nil
	}
	for _, a := range accounts {
		for _, g := range a.Groups {
			known, err := add(g)
			if err != nil {
				return nil, err
			}
			known.members = append(known.members, a.Name)
		}
	}
	for _, a := range accounts {
		if byID[a.GID] == nil {
			if _, err := add(Group{a.Name, a.GID}); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// passwdFile returns what /etc/passwd is to say.
func passwdFile(accounts []Account) string {
	var b strings.Builder
	b.WriteString(systemAccounts)
	for _, a := range accounts {
		fmt.Fprintf(&b, "%s:x:%d:%d::%s:/bin/sh\n", a.Name, a.UID, a.GID, a.home())
	}
	return b.String()
}

// shadowFile returns what /etc/shadow is to say: nobody logs in by it.
func shadowFile(accounts []Account) string {
	var b strings.Builder
	for line := range strings.Lines(passwdFile(accounts)) {
		name, _, _ := strings.Cut(line, ":")
		b.WriteString(name + ":*:19000::::::\n")
	}
	return b.String()
}

// groupFile returns what /etc/group is to say.
func groupFile(accounts []Account) (string, error) {
	groups, err := groupsOf(accounts)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&b, "%s:x:%d:%s\n", g.Name, g.GID, strings.Join(g.members, ","))
	}
	return b.String(), nil
}

func (a *Account) home() string { return "/home/" + a.Name }

// cache is the account's Kerberos credential cache, as krb5.conf has it.
func (a *Account) cache() string { return fmt.Sprintf("/tmp/krb5cc_%d", a.UID) }
