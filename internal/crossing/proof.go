package crossing

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/machines"
)

// acts claims that a server, in a scope or out of one, acts as want: it makes a file, whose owner is looked at from outside of the
// machine, and tries everybody's private files there. Nothing that it says of itself counts.
func (p *play) acts(server *player, want Person, why string) {
	if p.err != nil {
		return
	}
	p.files++
	path := fmt.Sprintf("%s/%s-%d-%d", made, server.Name, p.stage.plays, p.files)
	p.does(server, actor.Order{Act: actor.Create, Path: path})
	if p.err != nil {
		return
	}
	owner, err := ownerOf(server.on.Path(path))
	if err != nil {
		p.fail("looking at the file that %s made: %w", server, err)
		return
	}
	var opened, denied []string
	for _, other := range People {
		_, err := server.Do(actor.Order{Act: actor.Open, Path: private(other)})
		switch {
		case err == nil:
			opened = append(opened, other.Name)
		case errors.Is(err, fs.ErrPermission):
			denied = append(denied, other.Name)
		default:
			p.fail("%s was to try the private file of %s: %w", server, other, err)
			return
		}
	}
	right := owner.UID == want.IDs.UID && owner.GID == want.IDs.GID && slices.Equal(opened, []string{want.Name}) && len(denied) == len(People)-1
	p.claim(right, fmt.Sprintf("%s on %s acts as %s%s", server, server.on.Name, want, why),
		"its new file belongs to %s; of the private files it could open %s, not %s", nameOf(owner), list(opened), list(denied))
}

func list(names []string) string {
	if len(names) == 0 {
		return "nobody's"
	}
	return strings.Join(names, "'s, ") + "'s"
}

// quality claims what both ends of a connection, whose client asked for dynamic tracking, say is in force.
func (p *play) quality(client, server *player, want guise.Tracking) {
	full := guise.QoS{Level: guise.Impersonation, Tracking: want}
	got := p.does(client, actor.Order{Act: actor.State, Conn: server.Name}).QoS
	heard := p.does(server, actor.Order{Act: actor.State, Conn: client.Name}).QoS
	p.claim(got == full && heard == full, fmt.Sprintf("%s asked %s for %v tracking, and gets %v", client, server, guise.Dynamic, want),
		"%s's end says %v, %s's end says %v", client, got.Tracking, server, heard.Tracking)
}

// origin claims where the context that a server wears came from, and over whom on this machine.
func (p *play) origin(server *player, who Person, from *machines.Machine, via ...*player) {
	a := p.does(server, actor.Order{Act: actor.Token})
	if p.err != nil {
		return
	}
	o := a.Origin
	right := a.Network && a.Context.UID == who.IDs.UID && o.Account == who.Account && o.Client.Addr() == from.Address && o.Client.Port() != 0 &&
		len(o.SIDs) > 0 && o.Encrypted == (p.stage.Encrypted || p.kind.Encrypt)
	how := "signed"
	if o.Encrypted {
		how = "encrypted"
	}
	p.claim(right, fmt.Sprintf("%s's context came over the network from %s on %s", server, who, from.Name),
		"it says: %s at %s, %s", nameOfAccount(o.Domain, o.Account), o.Client.Addr(), how)
	p.way(server, a, via...)
}

func nameOfAccount(domain, account string) string {
	if domain == "" {
		return account
	}
	return domain + `\` + account
}

// way claims over whom on its machine a context came to a server, as the kernel shows their processes.
func (p *play) way(server *player, a actor.Answer, via ...*player) {
	right := len(a.Via) == len(via)
	var names, want []string
	for i, hop := range a.Via {
		names = append(names, fmt.Sprintf("process %d of %s", hop.PID, nameOf(actor.IDs{UID: hop.UID, GID: hop.GID})))
		right = right && hop.PID == via[i].PID() && hop.UID == via[i].IDs.UID && hop.GID == via[i].IDs.GID
	}
	for _, v := range via {
		want = append(want, v.Name)
	}
	if len(want) == 0 {
		p.claim(right, fmt.Sprintf("and via nobody on %s", server.on.Name), "%s", strings.Join(names, ", "))
		return
	}
	p.claim(right, fmt.Sprintf("%s's context came via %s", server, strings.Join(want, " and ")), "it says: %s", strings.Join(names, ", "))
}

// refused claims that a call fails with an error.
func (p *play) refused(client *player, o actor.Order, want error, what string) {
	if p.err != nil {
		return
	}
	_, err := client.Do(o)
	if err == nil {
		client.Do(actor.Order{Act: actor.Close, Conn: o.Conn})
		p.claim(false, what+" is refused", "it came through")
		return
	}
	text := strings.TrimPrefix(err.Error(), "dial "+o.Pipe+": ")
	p.claim(errors.Is(err, want), what+" is refused", "%s", text)
}
