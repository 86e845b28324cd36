package token

import (
	"fmt"
	"net/netip"
	"slices"
)

// Origin is where a context came from that came over the network, as the Samba server of this machine told of it. A context with an
// origin has no credentials to go on with to another machine.
//
// What is not known is zero. All of it is for a context that a process without privileges passed on: it can say that a context came
// over the network, which only takes something away, and not who it was there.
type Origin struct {
	// Client is the address and port of the client on the other machine.
	Client netip.AddrPort `json:"client"`
	// Account and Domain are the name that the client was authenticated as.
	Account string `json:"account"`
	Domain  string `json:"domain"`
	// SIDs are the security identifiers of the account and its groups, the account's first, as S-1-5-21-….
	SIDs []string `json:"sids,omitempty"`
	// Encrypted says that what the client sends was encrypted on the network.
	Encrypted bool `json:"encrypted"`
}

// String returns DOMAIN\ACCOUNT at the client's address, as far as they are known.
func (o Origin) String() string {
	name := o.Account
	if o.Domain != "" && name != "" {
		name = o.Domain + `\` + name
	}
	if name == "" {
		name = "somebody"
	}
	if !o.Client.IsValid() {
		return name + " on another machine"
	}
	return fmt.Sprintf("%s on %s", name, o.Client.Addr())
}

// Origin returns where the context came from, and whether it came over the network. The slice is the caller's.
func (t *Token) Origin() (o Origin, network bool) {
	if t == nil || t.origin == nil {
		return Origin{}, false
	}
	o = *t.origin
	o.SIDs = slices.Clone(o.SIDs)
	return o, true
}

// OverNetwork returns the token of a client on another machine, with the ids that it was mapped to on this one. Its level is
// Impersonation or what [Token.Restrict] makes of it. Uid 0 is another machine's root: see [Token.AllowForeignRoot].
func OverNetwork(uid, gid uint32, groups []uint32, origin Origin) (*Token, error) {
	t, err := FromIDs(uid, gid, groups)
	if err != nil {
		return nil, err
	}
	t.source.Kind = FromNetwork
	origin.SIDs = slices.Clone(origin.SIDs)
	t.from(&origin)
	return t, nil
}

// from makes t, which nobody else has yet, one that came over the network.
func (t *Token) from(o *Origin) {
	t.origin = o
	if t.obstacle == nil && t.uid == 0 {
		t.obstacle = &obstacle{foreignRoot: true, reason: "uid 0 of another machine"}
	}
}

func (o *Origin) equal(p *Origin) bool {
	if o == p || o == nil || p == nil {
		return o == p
	}
	return o.Client == p.Client && o.Account == p.Account && o.Domain == p.Domain && o.Encrypted == p.Encrypted && slices.Equal(o.SIDs, p.SIDs)
}
