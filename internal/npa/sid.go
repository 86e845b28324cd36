package npa

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// The SIDs that tell whether somebody is authenticated.
const (
	anonymousLogon     = "S-1-5-7"
	authenticatedUsers = "S-1-5-11"
	builtinGuests      = "S-1-5-32-546"
)

const (
	mostSubAuthorities = 15
	leastSID           = 8 + 4 // the fixed part and one sub-authority
)

// sid is a security identifier.
type sid struct {
	authority uint64 // 48 bits
	sub       []uint32
}

// sid reads a dom_sid. It is aligned to 4 bytes, as is whatever comes before one.
func (r *reader) sid(field string) sid {
	at := r.at
	head := r.take(8, field)
	if head == nil {
		return sid{}
	}
	n := int(head[1])
	if head[0] != 1 || n == 0 || n > mostSubAuthorities {
		r.fail(at, field, fmt.Sprintf("a SID of revision 1 with 1 to %d sub-authorities is expected", mostSubAuthorities))
		return sid{}
	}
	id := sid{authority: uint64(binary.BigEndian.Uint16(head[2:]))<<32 | uint64(binary.BigEndian.Uint32(head[4:]))}
	id.sub = make([]uint32, n)
	for i := range id.sub {
		id.sub[i] = r.u32(field)
	}
	return id
}

// String returns the SID as MS-DTYP, 2.4.2.1, writes it.
func (id sid) String() string {
	b := []byte("S-1-")
	if id.authority < 1<<32 {
		b = strconv.AppendUint(b, id.authority, 10)
	} else {
		b = fmt.Appendf(b, "0x%012X", id.authority)
	}
	for _, sub := range id.sub {
		b = append(b, '-')
		b = strconv.AppendUint(b, uint64(sub), 10)
	}
	return string(b)
}
