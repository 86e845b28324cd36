package crossing

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/guise-project/guise/internal/machines"
)

// calls is what a machine has heard of others up to some moment.
type calls struct {
	m   *machines.Machine
	log int64 // bytes of smbd's
	tcp int   // connections that the kernel has taken
}

func (p *play) callsOf(m *machines.Machine) calls {
	c := calls{m: m}
	if p.err == nil {
		c.tcp = c.taken(p)
		if info, err := os.Stat(m.SambaLog()); err != nil {
			p.fail("looking at smbd's log: %w", err)
		} else {
			c.log = info.Size()
		}
	}
	return c
}

// taken returns how many connections the machine's kernel has taken since it is there (tcp(7), PassiveOpens).
func (c calls) taken(p *play) int {
	out, err := c.m.Command(p.ctx, "cat", "/proc/net/snmp").Output()
	if err != nil {
		p.fail("asking the kernel of %s for its connections: %w", c.m.Name, err)
		return 0
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Tcp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		var n int
		if i := slices.Index(names, "PassiveOpens"); i > 0 && i < len(fields) {
			if _, err := fmt.Sscan(fields[i], &n); err == nil {
				return n
			}
		}
	}
	p.fail("the kernel of %s does not say how many connections it took", c.m.Name)
	return 0
}

// since returns how many connections came since, and who smbd says has tried to log on by them.
func (c calls) since(p *play) (connections int, accounts []string) {
	if p.err != nil {
		return 0, nil
	}
	connections = c.taken(p) - c.tcp
	b, err := os.ReadFile(c.m.SambaLog())
	if err != nil {
		p.fail("reading smbd's log: %w", err)
		return 0, nil
	}
	return connections, authentications(string(b[c.log:]))
}

// authentications returns the accounts that smbd's log says tried to log on, or did, each once; nobody is an anonymous one.
func authentications(log string) []string {
	var all []string
	for line := range strings.Lines(log) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "Auth:") && !strings.HasPrefix(line, "Successful AuthZ:") {
			continue
		}
		_, rest, _ := strings.Cut(line, " user [")
		_, rest, _ = strings.Cut(rest, `]\[`)
		account, _, _ := strings.Cut(rest, "]")
		account, _, _ = strings.Cut(account, "@")
		if account == "" {
			account = "nobody"
		}
		if !slices.Contains(all, account) {
			all = append(all, account)
		}
	}
	return all
}

// silent claims that a machine has heard of nobody since.
func (p *play) silent(c calls) {
	connections, accounts := c.since(p)
	p.claim(connections == 0 && len(accounts) == 0, fmt.Sprintf("%s has heard nothing meanwhile", c.m.Name), "%s", heard(connections, accounts))
}

// heardOnly claims that somebody has logged on to a machine since, and nobody else has tried.
func (p *play) heardOnly(c calls, who Person, why string) {
	connections, accounts := c.since(p)
	p.claim(connections > 0 && slices.Equal(accounts, []string{who.Account}), fmt.Sprintf("%s has heard of %s%s, and of nobody else", c.m.Name, who, why),
		"%s", heard(connections, accounts))
}

func heard(connections int, accounts []string) string {
	who := strings.Join(accounts, " and ")
	if who == "" {
		who = "nobody"
	}
	return fmt.Sprintf("connections that its kernel took: %d; who logged on or tried to, by smbd's log: %s", connections, who)
}
