// Package token says who: a [Token] is an immutable security context, a uid, a gid, supplementary groups,
// capabilities and an LSM label, as the kernel reported them, together with what its owner allows to be done with it.
//
// A token comes from the kernel ([Of], [OfDescriptor], [Self]) or from the account database ([Lookup]); there is no way
// to read one back from text or JSON, because a text proves nothing.
package token

import (
	"errors"
	"fmt"
	"slices"
)

// ErrNotWearable is what errors about contexts that are never worn wrap: ids that the kernel could not map or report, and
// uid 0 of another namespace.
var ErrNotWearable = errors.New("this context is never worn")

// ErrLevel says that the client's impersonation level does not allow what was asked (NT: ERROR_BAD_IMPERSONATION_LEVEL).
var ErrLevel = errors.New("the client's impersonation level does not allow it")

// invalidID is what the kernel reports where it has no id at all, and what setresuid(2) takes for "unchanged".
const invalidID = ^uint32(0)

// Token is a security context. It never changes once made, so it may be shared between goroutines. The zero Token is not
// a context of anybody: it can't be worn.
type Token struct {
	uid, gid uint32
	groups   groupList
	kept     keptList // if groups are shared

	// What the kernel shows of the capabilities, and what the owner of the context allows of them. Both only matter
	// for uid 0.
	seen, claimed Capabilities

	label         string
	level         Level
	effectiveOnly bool
	source        Source
	via           []Hop
	origin        *Origin // nil for a context of this machine
	obstacle      *obstacle
}

// Capabilities are the two sets that matter to somebody who acts for another: those present (permitted) and those
// enabled (effective).
type Capabilities struct {
	Permitted, Effective CapSet
}

func (c Capabilities) and(d Capabilities) Capabilities {
	return Capabilities{c.Permitted & d.Permitted, c.Effective & d.Effective}
}

// AllCapabilities limits nothing.
var AllCapabilities = Capabilities{AllCaps, AllCaps}

// obstacle is why a token can't be worn.
type obstacle struct {
	reason string
	// foreignRoot marks the one obstacle that a listener may set aside.
	foreignRoot bool
	// gone: the process had ended when it was to be looked at.
	gone bool
}

// Kind says how a token was come by.
type Kind uint8

// The ways to come by a token.
const (
	FromPeer    Kind = iota + 1 // the kernel froze it when the peer connected or called listen(2)
	FromProof                   // the client's side announced it and the kernel proved it
	FromThread                  // it is that of a thread of this process
	FromAccount                 // it was looked up in the account database, or made from ids
	FromNetwork                 // the Samba server of this machine authenticated the client and mapped it to local ids
)

var kindNames = [...]string{FromPeer: "peer", FromProof: "proof", FromThread: "thread", FromAccount: "account", FromNetwork: "network"}

// String returns the word for k that JSON has too.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Source is where a token came from. It is no part of a comparison: see [Token.Equal].
type Source struct {
	Kind Kind
	// PID is the process that the token was taken from, as numbered in this process's pid namespace; 0 where there
	// is none. By the time anybody looks, the number may be another process's.
	PID int
}

// UID returns the effective user id.
func (t *Token) UID() uint32 { return t.uid }

// GID returns the effective group id.
func (t *Token) GID() uint32 { return t.gid }

// Groups returns the supplementary group ids, sorted; the slice is the caller's.
func (t *Token) Groups() []uint32 { return slices.Clone([]uint32(t.groups)) }

// AppendGroups appends the supplementary group ids to dst, for callers that must not allocate.
func (t *Token) AppendGroups(dst []uint32) []uint32 { return append(dst, t.groups...) }

// HasGroup reports whether gid is the token's group or one of its supplementary groups.
func (t *Token) HasGroup(gid uint32) bool {
	return t.gid == gid || slices.Contains(t.groups, gid)
}

// Capabilities returns the capabilities that the token brings into a scope. A token of another uid than 0 brings none
// whatever its process has: the kernel freezes no capabilities when a client connects. An effective-only token has no
// permitted ones beyond the effective.
func (t *Token) Capabilities() Capabilities {
	if t.uid != 0 {
		return Capabilities{}
	}
	c := t.seen.and(t.claimed)
	c.Effective &= c.Permitted
	if t.effectiveOnly {
		c.Permitted = c.Effective
	}
	return c
}

// CapabilitiesWithin returns the token's capabilities as far as they are in c.
func (t *Token) CapabilitiesWithin(c Capabilities) Capabilities { return t.Capabilities().and(c) }

// Label returns the security label of the LSM in force (SO_PEERSEC), "" where there is none. It is information: a scope
// does not change the label of a thread.
func (t *Token) Label() string { return t.label }

// Level returns how far others may go with the token. Where its owner stated none it is [Impersonation].
func (t *Token) Level() Level {
	if t.level == LevelUnstated {
		return Impersonation
	}
	return t.level
}

// AtMost returns l as far as the owner of the context allows it to be handed on. A client's token allows the level that the
// client stated, Impersonation if it stated none; a token that is no client's allows every level.
func (t *Token) AtMost(l Level) Level {
	if t.level == LevelUnstated && (t.source.Kind == FromThread || t.source.Kind == FromAccount) {
		return l
	}
	return min(l, t.Level())
}

// EffectiveOnly reports whether only the enabled capabilities count.
func (t *Token) EffectiveOnly() bool { return t.effectiveOnly }

// Source returns where the token came from.
func (t *Token) Source() Source { return t.source }

// Wearable returns nil if a thread may wear the token, and otherwise an error that wraps [ErrLevel] or [ErrNotWearable] and
// says why not. It says nothing of the privilege that wearing it takes.
func (t *Token) Wearable() error {
	switch {
	case t == nil || t.source.Kind == 0:
		return fmt.Errorf("%w: no token was given", ErrNotWearable)
	case t.Level() < Identification: // not even by name
		return fmt.Errorf("%w: acting as somebody takes level impersonation, and this client is anonymous", ErrLevel)
	case t.obstacle != nil:
		return fmt.Errorf("%w: %s", ErrNotWearable, t.obstacle.reason)
	case t.Level() < Impersonation:
		return fmt.Errorf("%w: acting as uid %d takes level impersonation, it allows %s", ErrLevel, t.uid, t.Level())
	}
	return nil
}

// Gone reports whether the token is of uid 0 and its process had ended when it was to be looked at, so that nothing could be seen.
func (t *Token) Gone() bool { return t.obstacle != nil && t.obstacle.gone }

// AllowForeignRoot returns t without the obstacle that it is uid 0 of a mount or user namespace other than this process's.
// It is for servers that know what they do: the root of a container is uid 0 to this one too.
func (t *Token) AllowForeignRoot() *Token {
	if t.obstacle == nil || !t.obstacle.foreignRoot {
		return t
	}
	u := *t
	u.obstacle = nil
	return &u
}

// Statement is what the owner of a context says about the use of it.
type Statement struct {
	Level         Level // LevelUnstated: says nothing
	EffectiveOnly bool
	// Capabilities are the most that the context has, whatever the kernel shows; [AllCapabilities] where there is
	// nothing to say.
	Capabilities Capabilities
	// Network says that the context came over the network: see [Token.Origin].
	Network bool
}

// Restrict returns t as its owner's statement leaves it. A level is set where none was stated yet; a stated one can only be
// lowered, and so can everything else.
func (t *Token) Restrict(s Statement) *Token {
	u := *t
	if s.Level != LevelUnstated && (u.level == LevelUnstated || s.Level < u.level) {
		u.level = s.Level
	}
	u.effectiveOnly = u.effectiveOnly || s.EffectiveOnly
	u.claimed = u.claimed.and(s.Capabilities)
	if s.Network && u.origin == nil {
		u.from(&Origin{})
	}
	if u.claimed == t.claimed && u.level == t.level && u.effectiveOnly == t.effectiveOnly && u.origin == t.origin {
		return t
	}
	return &u
}

// SameIDs reports whether t and u have the same uid, gid and groups.
func (t *Token) SameIDs(u *Token) bool {
	return t == u || t.uid == u.uid && t.gid == u.gid && slices.Equal(t.groups, u.groups)
}

// Equal reports whether t and u are the same context: the same ids, groups, capabilities, label, level,
// effective-only and origin, and both or neither wearable. Where they came from is not compared: the same user is the same
// through another process.
func (t *Token) Equal(u *Token) bool {
	if t == u || t == nil || u == nil {
		return t == u
	}
	return t.SameIDs(u) &&
		t.Capabilities() == u.Capabilities() && t.label == u.label &&
		t.Level() == u.Level() && t.effectiveOnly == u.effectiveOnly && t.origin.equal(u.origin) &&
		(t.obstacle == nil) == (u.obstacle == nil)
}
