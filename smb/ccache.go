package smb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
)

// ccache is a credential cache. gokrb5's own reader takes lengths in the file at their word, and ends the process for want of memory; a
// client of a server's writes this file.
type ccache struct {
	client  principal
	tickets []ticket
}

type principal struct {
	realm string
	name  types.PrincipalName
}

// String returns NAME@REALM, quoted and cut off where it could make an error's text look like something else: a client chooses it freely.
func (p principal) String() string {
	s := p.name.PrincipalNameString() + "@" + p.realm
	if len(s) > longestPrincipal || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		s = strconv.QuoteToASCII(s[:min(len(s), longestPrincipal)])
	}
	return s
}

// longestPrincipal is how many bytes of a principal are shown.
const longestPrincipal = 200

// ticket is a ticket with the key that goes with it.
type ticket struct {
	client, server principal
	key            types.EncryptionKey
	start, end     time.Time
	ticket         messages.Ticket
}

func (t ticket) expired(now time.Time) bool { return !now.Before(t.end) }

var errShortCache = errors.New("it ends in the middle; perhaps it is being written")

// parseCache reads versions 3 and 4 of the format of credential caches in files.
func parseCache(data []byte) (c *ccache, err error) {
	defer func() {
		if v := recover(); v != nil { // gokrb5's ASN.1
			c, err = nil, fmt.Errorf("its tickets can't be read: %v", v)
		}
	}()
	r := &cacheReader{rest: data}
	if r.uint8() != 5 {
		return nil, errors.New("it is not a credential cache")
	}
	version := r.uint8()
	switch version {
	case 3:
	case 4:
		r.bytes(int(r.uint16()))
	default:
		return nil, fmt.Errorf("it is a credential cache of version %d; 3 and 4 are understood", version)
	}
	c = &ccache{client: r.principal()}
	for r.err == nil && len(r.rest) > 0 {
		t, skip := r.credential(version)
		if r.err != nil || skip {
			continue
		}
		raw := t.raw
		if err := t.ticket.ticket.Unmarshal(raw); err != nil {
			return nil, fmt.Errorf("its ticket for %s can't be read", t.server)
		}
		if len(t.ticket.ticket.SName.NameString) == 0 {
			return nil, errors.New("it has a ticket for nobody")
		}
		c.tickets = append(c.tickets, t.ticket)
	}
	if r.err != nil {
		return nil, r.err
	}
	if c.client.realm == "" || len(c.client.name.NameString) == 0 {
		return nil, errors.New("it is nobody's")
	}
	return c, nil
}

// find returns a ticket for a server that has not expired, or the one that has expired last. An empty realm is any.
func (c *ccache) find(server []string, realm string, now time.Time) (found ticket, ok bool) {
	for _, t := range c.tickets {
		if !slices.Equal(t.server.name.NameString, server) || realm != "" && t.server.realm != realm ||
			t.client.realm != c.client.realm || !t.client.name.Equal(c.client.name) {
			continue
		}
		if !ok || t.end.After(found.end) {
			found, ok = t, true
		}
	}
	return found, ok
}

// cacheReader reads big-endian numbers and what they are the lengths of. After an error everything is empty.
type cacheReader struct {
	rest []byte
	err  error
}

func (r *cacheReader) bytes(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.rest) {
		r.err = errShortCache
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *cacheReader) uint8() (v uint8) {
	if b := r.bytes(1); b != nil {
		v = b[0]
	}
	return v
}

func (r *cacheReader) uint16() (v uint16) {
	if b := r.bytes(2); b != nil {
		v = binary.BigEndian.Uint16(b)
	}
	return v
}

func (r *cacheReader) uint32() (v uint32) {
	if b := r.bytes(4); b != nil {
		v = binary.BigEndian.Uint32(b)
	}
	return v
}

func (r *cacheReader) data() []byte { return r.bytes(int(r.uint32())) }

func (r *cacheReader) time() time.Time { return time.Unix(int64(r.uint32()), 0) }

func (r *cacheReader) principal() (p principal) {
	p.name.NameType = int32(r.uint32())
	n := r.uint32()
	p.realm = string(r.data())
	for ; n > 0 && r.err == nil; n-- {
		p.name.NameString = append(p.name.NameString, string(r.data()))
	}
	return p
}

type cachedTicket struct {
	ticket
	raw []byte
}

// credential reads one entry. Those that hold settings of libkrb5's, and tickets between users, are to be skipped.
func (r *cacheReader) credential(version uint8) (t cachedTicket, skip bool) {
	t.client = r.principal()
	t.server = r.principal()
	t.key.KeyType = int32(r.uint16())
	if version == 3 {
		r.uint16()
	}
	t.key.KeyValue = slices.Clone(r.data())
	auth := r.time()
	t.start = r.time()
	if t.start.Unix() == 0 {
		t.start = auth
	}
	t.end = r.time()
	r.time() // renewable until
	userToUser := r.uint8() != 0
	r.uint32() // flags
	for range 2 {
		for n := r.uint32(); n > 0 && r.err == nil; n-- {
			r.uint16()
			r.data()
		}
	}
	t.raw = r.data()
	r.data() // second ticket
	return t, userToUser || strings.HasPrefix(t.server.realm, "X-CACHECONF")
}
