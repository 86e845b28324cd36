package smb

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/pipename"
)

// target is a pipe on another machine.
type target struct {
	host string     // as it was given, without brackets
	addr netip.Addr // if host is one
	pipe string     // folded to lower case
}

// longestHost is how many bytes a machine's name can have.
const longestHost = 253

// parseName understands \\HOST\pipe\NAME and, which shells leave alone, //HOST/pipe/NAME.
func parseName(s string) (target, error) {
	t, err := splitName(s)
	if err != nil {
		return target{}, fmt.Errorf("%w: %w", guise.ErrBadName, err)
	}
	return t, nil
}

func splitName(s string) (t target, err error) {
	separator := `\`
	rest, ok := strings.CutPrefix(s, `\\`)
	if !ok {
		separator = "/"
		rest, ok = strings.CutPrefix(s, "//")
	}
	if !ok {
		return t, fmt.Errorf(`%q is not on another machine; such pipes are called \\HOST\pipe\NAME or //HOST/pipe/NAME, and guise.Dial opens those of this one`, s)
	}
	parts := strings.Split(rest, separator)
	if len(parts) != 3 || !strings.EqualFold(parts[1], "pipe") {
		return t, fmt.Errorf(`%q is no pipe: they are called \\HOST\pipe\NAME or //HOST/pipe/NAME`, s)
	}
	if parts[0] == "." {
		return t, fmt.Errorf(`%s is a pipe of this machine, which does not go over the network: guise.Dial opens it`, s)
	}
	if t.host, t.addr, err = splitHost(parts[0]); err != nil {
		return t, err
	}
	t.pipe, err = pipename.Fold(parts[2])
	return t, err
}

func splitHost(s string) (host string, addr netip.Addr, err error) {
	host = s
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return host, addr, nil
	}
	if host == "" || len(host) > longestHost {
		return "", addr, fmt.Errorf("%q is not the name of a machine", s)
	}
	for i := range len(host) {
		c := host[i]
		if !letterOrDigit(c) && c != '-' && c != '_' && c != '.' {
			return "", addr, fmt.Errorf("%q is neither the name of a machine nor an address: it has %q in it", s, c)
		}
	}
	if host[0] == '.' || host[0] == '-' || strings.Contains(host, "..") {
		return "", addr, fmt.Errorf("%q is not the name of a machine", s)
	}
	return host, addr, nil
}

func letterOrDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// share is the tree that pipes are in.
func (t target) share() string { return `\\` + t.host + `\IPC$` }
