package npa

import (
	"encoding/binary"
	"slices"
	"testing"
)

// wire is a request with everything that is in it. It is the tests' own description of the format, from Samba's
// definitions: it believes all that it reads, and what it read it writes again, byte for byte.
type wire struct {
	Length                     uint32
	Level, Again               uint32
	Transport                  uint8
	ClientName, ClientAddress  text
	ClientPort                 uint16
	ServerName, ServerAddress  text
	ServerPort                 uint16
	TransportRef               uint32
	NeedIdle                   uint8 // level 5
	SessionRef                 uint32
	Credentials                []byte
	TokenRef, UnixTokenRef     uint32
	InfoRef, UnixInfoRef       uint32
	TortureRef, CredentialsRef uint32
	Key                        []byte
	ID                         [16]byte
	Ticket                     uint16
	SIDs                       [][]byte // of which the second byte says how long they are
	Privileges                 uint64
	Rights                     uint32
	Claims                     [4]uint32 // level 8: local, user, device; and the device's SIDs
	EvaluateClaims             uint16    // level 8
	UID, GID                   uint64
	Groups                     []uint64
	Account, Principal         text
	Constructed                uint8
	Domain, DNSDomain          text
	Others                     [6]text
	Times                      [6]uint64
	Logons, BadPasswords       uint16
	AccountFlags               uint32
	UserFlags                  uint32 // level 5: authenticated, a byte
	UnixName, Sanitized        text
	Rest                       []byte
}

// text is a string behind a pointer.
type text struct {
	Ref  uint32
	Text string
}

func pointed(s string) text { return text{0x20000, s} }

// kind is what a field is for.
type kind int

const (
	number  kind = iota
	count        // of elements or bytes
	offset       // always 0
	pointer      // 0 is nil
	zero         // padding, and what is always 0
	boolean
	content
)

// field is where something is in a request.
type field struct {
	name     string
	kind     kind
	at, size int
}

// codec reads or writes a wire, and notes where the fields are.
type codec struct {
	b       []byte
	at      int
	writing bool
	broken  bool // there was less to read than there should be
	fields  []field
}

func (c *codec) bytes(name string, k kind, n int, v []byte) []byte {
	if c.writing {
		c.b = append(c.b, v...)
	} else if n < 0 || n > len(c.b)-c.at {
		c.broken = true
		return nil
	}
	v = slices.Clone(c.b[c.at : c.at+n])
	c.fields = append(c.fields, field{name, k, c.at, n})
	c.at += n
	return v
}

func (c *codec) align(n int) {
	if pad := (n - c.at%n) % n; pad > 0 {
		c.bytes("padding", zero, pad, make([]byte, pad))
	}
}

func integer[T uint8 | uint16 | uint32 | uint64](c *codec, name string, k kind, align int, v *T) {
	size := binary.Size(*v)
	c.align(align)
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(*v))
	copy(b[:], c.bytes(name, k, size, b[:size]))
	*v = T(binary.LittleEndian.Uint64(b[:]))
}

func (c *codec) u8(name string, k kind, v *uint8)   { integer(c, name, k, 1, v) }
func (c *codec) u16(name string, v *uint16)         { integer(c, name, number, 2, v) }
func (c *codec) u32(name string, k kind, v *uint32) { integer(c, name, k, 4, v) }
func (c *codec) hyper(name string, v *uint64)       { integer(c, name, number, 8, v) }
func (c *codec) nttime(name string, v *uint64)      { integer(c, name, number, 4, v) }

// length writes n as a count, or reads it.
func (c *codec) length(name string, n int) int {
	v := uint32(n)
	c.u32(name, count, &v)
	return int(v)
}

func (c *codec) blob(name string, v *[]byte) {
	n := c.length(name, len(*v))
	*v = c.bytes(name, content, n, *v)
}

func (c *codec) text(name string, t *text) {
	if t.Ref == 0 {
		return
	}
	n := c.length(name, len(t.Text)+1)
	c.u32(name, offset, new(uint32))
	c.length(name, n)
	if b := c.bytes(name, content, n, append([]byte(t.Text), 0)); len(b) > 0 {
		t.Text = string(b[:len(b)-1])
	}
}

func (c *codec) walk(w *wire) {
	if length := c.bytes("length", count, 4, binary.BigEndian.AppendUint32(nil, w.Length)); length != nil {
		w.Length = binary.BigEndian.Uint32(length)
	}
	c.bytes("magic", content, 4, []byte("NPAM"))
	c.u32("level", number, &w.Level)
	c.u32("info", number, &w.Again)

	c.u8("transport", number, &w.Transport)
	c.u32("remote_client_name", pointer, &w.ClientName.Ref)
	c.u32("remote_client_addr", pointer, &w.ClientAddress.Ref)
	c.u16("remote_client_port", &w.ClientPort)
	c.u32("local_server_name", pointer, &w.ServerName.Ref)
	c.u32("local_server_addr", pointer, &w.ServerAddress.Ref)
	c.u16("local_server_port", &w.ServerPort)
	c.u32("session_info", pointer, &w.TransportRef)
	if w.Level == 5 {
		c.u8("need_idle_server", boolean, &w.NeedIdle)
	}
	c.text("remote_client_name", &w.ClientName)
	c.text("remote_client_addr", &w.ClientAddress)
	c.text("local_server_name", &w.ServerName)
	c.text("local_server_addr", &w.ServerAddress)

	c.u32("session_info.session_info", pointer, &w.SessionRef)
	c.blob("exported_gssapi_credentials", &w.Credentials)
	c.u32("security_token", pointer, &w.TokenRef)
	c.u32("unix_token", pointer, &w.UnixTokenRef)
	c.u32("info", pointer, &w.InfoRef)
	c.u32("unix_info", pointer, &w.UnixInfoRef)
	c.u32("torture", pointer, &w.TortureRef)
	c.blob("session_key", &w.Key)
	c.u32("credentials", pointer, &w.CredentialsRef)
	c.align(4)
	copy(w.ID[:], c.bytes("unique_session_token", content, 16, w.ID[:]))
	c.u16("ticket_type", &w.Ticket)

	c.align(8)
	c.sids(w)
	c.hyper("privilege_mask", &w.Privileges)
	c.u32("rights_mask", number, &w.Rights)
	if w.Level >= 8 {
		for i := range w.Claims {
			c.u32("num_claims", count, &w.Claims[i])
		}
		for i := range w.Claims {
			c.length("claims", int(w.Claims[i]))
		}
		c.u16("evaluate_claims", &w.EvaluateClaims)
	}

	n := c.length("groups", len(w.Groups))
	c.hyper("uid", &w.UID)
	c.hyper("gid", &w.GID)
	c.length("ngroups", n)
	c.align(8)
	if !c.writing {
		if n < 0 || n > len(c.b)/8 {
			c.broken = true
			return
		}
		w.Groups = make([]uint64, n)
	}
	for i := range w.Groups {
		c.hyper("groups", &w.Groups[i])
	}

	c.u32("account_name", pointer, &w.Account.Ref)
	c.u32("user_principal_name", pointer, &w.Principal.Ref)
	c.u8("user_principal_constructed", boolean, &w.Constructed)
	c.u32("domain_name", pointer, &w.Domain.Ref)
	c.u32("dns_domain_name", pointer, &w.DNSDomain.Ref)
	for i := range w.Others {
		c.u32("full_name and others", pointer, &w.Others[i].Ref)
	}
	for i := range w.Times {
		c.nttime("last_logon and others", &w.Times[i])
	}
	c.u16("logon_count", &w.Logons)
	c.u16("bad_password_count", &w.BadPasswords)
	c.u32("acct_flags", number, &w.AccountFlags)
	if w.Level == 5 {
		authenticated := uint8(w.UserFlags)
		c.u8("authenticated", boolean, &authenticated)
		w.UserFlags = uint32(authenticated)
	} else {
		c.u32("user_flags", number, &w.UserFlags)
	}
	c.text("account_name", &w.Account)
	c.text("user_principal_name", &w.Principal)
	c.text("domain_name", &w.Domain)
	c.text("dns_domain_name", &w.DNSDomain)
	for i := range w.Others {
		c.text("full_name and others", &w.Others[i])
	}

	c.u32("unix_name", pointer, &w.UnixName.Ref)
	c.u32("sanitized_username", pointer, &w.Sanitized.Ref)
	c.text("unix_name", &w.UnixName)
	c.text("sanitized_username", &w.Sanitized)
	w.Rest = c.bytes("end", content, max(len(c.b)-c.at, len(w.Rest)), w.Rest)
}

func (c *codec) sids(w *wire) {
	n := c.length("num_sids", len(w.SIDs))
	c.length("sids", n)
	if !c.writing {
		if n < 0 || n > len(c.b)/8 {
			c.broken = true
			return
		}
		w.SIDs = make([][]byte, n)
	}
	for i := range w.SIDs {
		c.align(4)
		size := len(w.SIDs[i])
		if !c.writing && c.at+2 <= len(c.b) {
			size = 8 + 4*int(c.b[c.at+1])
		}
		w.SIDs[i] = c.bytes("sids", content, size, w.SIDs[i])
	}
}

// decoded returns what b is, or false if b is too short for it.
func decoded(b []byte) (*wire, bool) {
	w, c := new(wire), &codec{b: b}
	c.walk(w)
	return w, !c.broken
}

func mustDecode(t testing.TB, b []byte) *wire {
	t.Helper()
	w, ok := decoded(b)
	if !ok {
		t.Fatal("the tests can't read this request")
	}
	return w
}

// encode returns w as it is, whatever length it says.
func (w *wire) encode() ([]byte, []field) {
	c := &codec{writing: true}
	c.walk(w)
	return c.b, c.fields
}

// finished returns w, with the length that it has.
func (w *wire) finished() []byte {
	b, _ := w.encode()
	return relength(b)
}

// relength makes the length at the beginning of b that of b.
func relength(b []byte) []byte {
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// rawSID returns a SID as it is in a request.
func rawSID(authority byte, sub ...uint32) []byte {
	b := []byte{1, byte(len(sub)), 0, 0, 0, 0, 0, authority}
	for _, s := range sub {
		b = binary.LittleEndian.AppendUint32(b, s)
	}
	return b
}
