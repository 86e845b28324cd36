package announce

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/guise-project/guise/token"
)

// How long what a way tells of an origin may be, in bytes. A Windows account can have some thousand groups.
const (
	longestName   = 255
	longestSIDs   = 60000
	longestOrigin = 1 + 16 + 2 + 1 + 1 + longestName + 1 + longestName + 2 + longestSIDs
)

// appendOrigin leaves out what is too long, whole: a part of a name would be another one, and SIDs of which some are missing would say
// that the account is not in their groups. It appends the length of the client's address, the address and the port; whether the connection was encrypted; account
// and domain, each after its length; and the SIDs with spaces between them, after the length of all.
func appendOrigin(b []byte, o *token.Origin) []byte {
	address := o.Client.Addr().Unmap().AsSlice()
	b = append(append(b, byte(len(address))), address...)
	b = binary.LittleEndian.AppendUint16(b, o.Client.Port())
	encrypted := byte(0)
	if o.Encrypted {
		encrypted = 1
	}
	b = append(b, encrypted)
	for _, name := range [...]string{o.Account, o.Domain} {
		if len(name) > longestName {
			name = ""
		}
		b = append(append(b, byte(len(name))), name...)
	}
	sids := strings.Join(o.SIDs, " ")
	if len(sids) > longestSIDs {
		sids = ""
	}
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(sids))), sids...)
}

// readOrigin returns the origin at the beginning of b, and what comes after it.
func readOrigin(b []byte) (*token.Origin, []byte, error) {
	cut := func(n int) (part []byte) {
		if b == nil || len(b) < n {
			b = nil
			return nil
		}
		part, b = b[:n:n], b[n:]
		return part
	}
	number := func(size int) int {
		switch part := cut(size); {
		case part == nil:
			return 0
		case size == 1:
			return int(part[0])
		default:
			return int(binary.LittleEndian.Uint16(part))
		}
	}
	var o token.Origin
	length := number(1)
	address, isAddress := netip.AddrFromSlice(cut(length))
	port := number(2)
	encrypted := number(1)
	account, domain := string(cut(number(1))), string(cut(number(1)))
	sids := string(cut(number(2)))
	switch {
	case b == nil:
		return nil, nil, fmt.Errorf("%w: a way that is cut off in its origin", ErrProtocol)
	case length != 0 && !isAddress || address.Is4In6() || length == 0 && port != 0:
		return nil, nil, fmt.Errorf("%w: a way's origin has an address of %d bytes", ErrProtocol, length)
	case encrypted > 1:
		return nil, nil, fmt.Errorf("%w: a way's origin is encrypted in way %d", ErrProtocol, encrypted)
	case len(sids) > longestSIDs:
		return nil, nil, fmt.Errorf("%w: a way's origin has SIDs of %d bytes", ErrProtocol, len(sids))
	}
	if length != 0 {
		o.Client = netip.AddrPortFrom(address, uint16(port))
	}
	o.Encrypted = encrypted == 1
	o.Account, o.Domain = strings.ToValidUTF8(account, "?"), strings.ToValidUTF8(domain, "?")
	if sids != "" {
		o.SIDs = strings.Split(sids, " ")
		for _, sid := range o.SIDs {
			if !isSID(sid) {
				return nil, nil, fmt.Errorf("%w: a way's origin has %q among its SIDs", ErrProtocol, sid)
			}
		}
	}
	return &o, b, nil
}

// isSID reports whether s looks like S-1-5-21-….
func isSID(s string) bool {
	numbers, ok := strings.CutPrefix(s, "S-1-")
	return ok && numbers != "" && strings.Trim(numbers, "0123456789-") == ""
}
