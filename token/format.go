package token

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

// String prints the token as a person would write it: the account, its groups with the primary one first, and what is
// out of the ordinary.
//
//	alice(1001) groups=alice(1001),audio(29)
//
// It asks the account database for the names, which may take as long as a name service does, and remembers them for ten seconds. An id
// without an account stands alone. Of more than 16 groups it says how many more there are.
func (t *Token) String() string {
	if t == nil || t.source.Kind == 0 {
		return "nobody"
	}
	var b strings.Builder
	b.WriteString(userLabel(t.uid))
	b.WriteString(" groups=")
	b.WriteString(groupLabel(t.gid))
	shown := 0
	for i, g := range t.groups {
		if g == t.gid {
			continue
		}
		if shown == mostNamed {
			fmt.Fprintf(&b, " and %d more", len(t.groups)-i)
			break
		}
		shown++
		b.WriteByte(',')
		b.WriteString(groupLabel(g))
	}
	if c := t.Capabilities(); c != (Capabilities{}) {
		b.WriteString(" capabilities=" + c.Effective.String())
		if c.Permitted != c.Effective {
			b.WriteString(" of " + c.Permitted.String())
		}
	}
	if l := t.Level(); l != Impersonation {
		b.WriteString(" level=" + l.String())
	}
	if t.effectiveOnly {
		b.WriteString(" effective-only")
	}
	if t.origin != nil {
		b.WriteString(" from " + t.origin.String())
	}
	if t.obstacle != nil {
		b.WriteString(" (never worn: " + t.obstacle.reason + ")")
	}
	return b.String()
}

// MarshalText returns what String does. There is no way back.
func (t *Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

type jsonID struct {
	ID   uint32 `json:"id"`
	Name string `json:"name,omitempty"`
}

// MarshalJSON returns an object with the members user, group and groups (each an id and, where there is an account, a
// name; of the groups the first 16 have one), level, effectiveOnly, permitted, effective, label, source, pid, origin (for a context that came over the network) and neverWorn
// (why, if it can't be worn). There is no way back.
func (t *Token) MarshalJSON() ([]byte, error) {
	if t == nil || t.source.Kind == 0 {
		return []byte("null"), nil
	}
	list := make([]jsonID, len(t.groups))
	for i, g := range t.groups {
		list[i].ID = g
		if i < mostNamed {
			list[i].Name = groupName(g)
		}
	}
	neverWorn := ""
	if t.obstacle != nil {
		neverWorn = t.obstacle.reason
	}
	c := t.Capabilities()
	return json.Marshal(struct {
		User          jsonID   `json:"user"`
		Group         jsonID   `json:"group"`
		Groups        []jsonID `json:"groups"`
		Level         Level    `json:"level"`
		EffectiveOnly bool     `json:"effectiveOnly"`
		Permitted     CapSet   `json:"permitted"`
		Effective     CapSet   `json:"effective"`
		Label         string   `json:"label,omitempty"`
		Source        string   `json:"source"`
		PID           int      `json:"pid,omitempty"`
		Origin        *Origin  `json:"origin,omitempty"`
		NeverWorn     string   `json:"neverWorn,omitempty"`
	}{
		jsonID{t.uid, userName(t.uid)}, jsonID{t.gid, groupName(t.gid)}, list,
		t.Level(), t.effectiveOnly, c.Permitted, c.Effective, t.label,
		t.source.Kind.String(), t.source.PID, t.origin, neverWorn,
	})
}

// LogValue makes a token readable in a structured log.
func (t *Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

func userLabel(uid uint32) string  { return label(uid, userName(uid)) }
func groupLabel(gid uint32) string { return label(gid, groupName(gid)) }

func label(id uint32, name string) string {
	number := strconv.FormatUint(uint64(id), 10)
	if name == "" {
		return number
	}
	return name + "(" + number + ")"
}

func userName(uid uint32) string  { return users.of(uid) }
func groupName(gid uint32) string { return groups.of(gid) }
