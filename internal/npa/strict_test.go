package npa

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// TestFields spoils each field of each sample, in each way that its kind allows none of.
func TestFields(t *testing.T) {
	spoilers := map[kind]func(old []byte) [][]byte{
		count: func(old []byte) (all [][]byte) {
			n := binary.LittleEndian.Uint32(old)
			for _, v := range []uint32{n + 1, n - 1, n + 8, 1 << 16, 1 << 24, math.MaxInt32, 1 << 31, math.MaxUint32} {
				all = append(all, binary.LittleEndian.AppendUint32(nil, v))
			}
			return all
		},
		offset: func([]byte) [][]byte { return [][]byte{{1, 0, 0, 0}, {0, 0, 0, 0x80}, {0xff, 0xff, 0xff, 0xff}} },
		pointer: func(old []byte) [][]byte {
			if binary.LittleEndian.Uint32(old) == 0 {
				return [][]byte{{1, 0, 0, 0}, {0, 0, 2, 0}}
			}
			return [][]byte{{0, 0, 0, 0}}
		},
		zero: func(old []byte) (all [][]byte) {
			for i := range old {
				b := make([]byte, len(old))
				b[i] = 1
				all = append(all, b)
			}
			return all
		},
		boolean: func([]byte) [][]byte { return [][]byte{{2}, {0x80}, {0xff}} },
	}
	seen := map[kind]int{}
	for _, s := range samples(t) {
		_, fields := mustDecode(t, s.b).encode()
		for _, f := range fields {
			if f.size == 0 || spoilers[f.kind] == nil {
				continue
			}
			for _, spoiled := range spoilers[f.kind](s.b[f.at : f.at+f.size]) {
				seen[f.kind]++
				b := bytes.Clone(s.b)
				copy(b[f.at:], spoiled)
				var q *Request
				var err error
				if n := allocated(func() { q, err = read(b) }); n > 200<<10 {
					t.Errorf("%s, %s at %d is %x: %d bytes were allocated", s.name, f.name, f.at, spoiled, n)
				}
				if err == nil {
					t.Errorf("%s, %s at %d is %x: %+v", s.name, f.name, f.at, spoiled, q)
				}
			}
		}
	}
	for k := range spoilers {
		if seen[k] == 0 {
			t.Errorf("there is no field of kind %d", k)
		}
	}
}

// TestReferents: what stands for a pointer is any number but 0.
func TestReferents(t *testing.T) {
	for _, s := range samples(t) {
		_, fields := mustDecode(t, s.b).encode()
		for _, referent := range []uint32{1, 0x00020000, 0xffffffff} {
			b := bytes.Clone(s.b)
			for _, f := range fields {
				if f.kind == pointer && binary.LittleEndian.Uint32(b[f.at:]) != 0 {
					binary.LittleEndian.PutUint32(b[f.at:], referent)
				}
			}
			if got, err := read(b); err != nil || !reflect.DeepEqual(*got, s.want) {
				t.Errorf("%s, referents %#x: %+v, %v", s.name, referent, got, err)
			}
		}
	}
}

var levels = []string{"level5-ntlm", "level7-ntlm", "level8-ntlm"}

func TestRefused(t *testing.T) {
	manySIDs := func(n byte) []byte {
		return append([]byte{1, n, 0, 0, 0, 0, 0, 5}, make([]byte, 4*int(n))...)
	}
	texts := map[string]string{
		"NUL": "a\x00b", "NUL at the end": "a\x00", "only NUL": "\x00", "no UTF-8": "\xff", "half a rune": "a\xc3", "surrogate": "\xed\xa0\x80",
		"newline": "a\nb", "escape": "\x1b[1m", "DEL": "\x7f", "C1": "\u0085",
	}
	type edit = func(w *wire)
	tests := map[string]struct {
		field string
		edit  edit
	}{
		"no named pipe":           {"transport", func(w *wire) { w.Transport = 2 }},
		"no transport":            {"transport", func(w *wire) { w.Transport = 0 }},
		"no address":              {"remote_client_addr", func(w *wire) { w.ClientAddress.Text = "localhost" }},
		"empty address":           {"remote_client_addr", func(w *wire) { w.ClientAddress.Text = "" }},
		"address with a port":     {"local_server_addr", func(w *wire) { w.ServerAddress.Text = "127.0.0.1:1" }},
		"address with a zone":     {"local_server_addr", func(w *wire) { w.ServerAddress.Text = "fe80::1%eth0" }},
		"no client name":          {"remote_client_name", func(w *wire) { w.ClientName = text{} }},
		"no client address":       {"remote_client_addr", func(w *wire) { w.ClientAddress = text{} }},
		"no server name":          {"local_server_name", func(w *wire) { w.ServerName = text{} }},
		"no server address":       {"local_server_addr", func(w *wire) { w.ServerAddress = text{} }},
		"no session":              {"session_info", func(w *wire) { w.TransportRef = 0 }},
		"no session in it":        {"session_info.session_info", func(w *wire) { w.SessionRef = 0 }},
		"no security token":       {"security_token", func(w *wire) { w.TokenRef = 0 }},
		"no Unix token":           {"unix_token", func(w *wire) { w.UnixTokenRef = 0 }},
		"no user information":     {"info", func(w *wire) { w.InfoRef = 0 }},
		"no Unix information":     {"unix_info", func(w *wire) { w.UnixInfoRef = 0 }},
		"torture":                 {"torture", func(w *wire) { w.TortureRef = 1 }},
		"credentials":             {"credentials", func(w *wire) { w.CredentialsRef = 1 }},
		"ticket type":             {"ticket_type", func(w *wire) { w.Ticket = 3 }},
		"no account":              {"account_name", func(w *wire) { w.Account = text{} }},
		"no Unix name":            {"unix_name", func(w *wire) { w.UnixName = text{} }},
		"no sanitized name":       {"sanitized_username", func(w *wire) { w.Sanitized = text{} }},
		"constructed":             {"user_principal_constructed", func(w *wire) { w.Constructed = 2 }},
		"uid of 33 bits":          {"uid", func(w *wire) { w.UID = 1 << 32 }},
		"uid of 64 bits":          {"uid", func(w *wire) { w.UID = math.MaxUint64 }},
		"no uid":                  {"uid", func(w *wire) { w.UID = math.MaxUint32 }},
		"gid of 33 bits":          {"gid", func(w *wire) { w.GID = 1<<32 + 1001 }},
		"no gid":                  {"gid", func(w *wire) { w.GID = math.MaxUint32 }},
		"group of 33 bits":        {"groups", func(w *wire) { w.Groups[3] = 1 << 32 }},
		"no group":                {"groups", func(w *wire) { w.Groups[0] = math.MaxUint32 }},
		"SID of revision 0":       {"sids", func(w *wire) { w.SIDs[0][0] = 0 }},
		"SID of revision 2":       {"sids", func(w *wire) { w.SIDs[0][0] = 2 }},
		"SID of no authorities":   {"sids", func(w *wire) { w.SIDs[1] = manySIDs(0) }},
		"SID of 16 authorities":   {"sids", func(w *wire) { w.SIDs[1] = manySIDs(16) }},
		"SID of 255 authorities":  {"sids", func(w *wire) { w.SIDs[1] = manySIDs(255) }},
		"idle server, level 5":    {"need_idle_server", func(w *wire) { w.NeedIdle = 2 }},
		"authenticated, level 5":  {"authenticated", func(w *wire) { w.UserFlags = 2 }},
		"evaluation, level 8":     {"evaluate_claims", func(w *wire) { w.EvaluateClaims = 3 }},
		"local claims, level 8":   {"num_local_claims", func(w *wire) { w.Claims[0] = 1 }},
		"user claims, level 8":    {"num_user_claims", func(w *wire) { w.Claims[1] = 1 }},
		"device claims, level 8":  {"num_device_claims", func(w *wire) { w.Claims[2] = 1 }},
		"SIDs of a dev., level 8": {"num_device_sids", func(w *wire) { w.Claims[3] = 1 }},
	}
	fields := map[string]func(w *wire) *text{
		"remote_client_name":  func(w *wire) *text { return &w.ClientName },
		"remote_client_addr":  func(w *wire) *text { return &w.ClientAddress },
		"local_server_name":   func(w *wire) *text { return &w.ServerName },
		"local_server_addr":   func(w *wire) *text { return &w.ServerAddress },
		"account_name":        func(w *wire) *text { return &w.Account },
		"user_principal_name": func(w *wire) *text { return &w.Principal },
		"domain_name":         func(w *wire) *text { return &w.Domain },
		"dns_domain_name":     func(w *wire) *text { return &w.DNSDomain },
		"unix_name":           func(w *wire) *text { return &w.UnixName },
		"sanitized_username":  func(w *wire) *text { return &w.Sanitized },
	}
	for i, name := range []string{"full_name", "logon_script", "profile_path", "home_directory", "home_drive", "logon_server"} {
		fields[name] = func(w *wire) *text { return &w.Others[i] }
	}
	for field, at := range fields {
		for what, is := range texts {
			tests[what+" in "+field] = struct {
				field string
				edit  edit
			}{field, func(w *wire) { *at(w) = pointed(is) }}
		}
	}
	for name, test := range tests {
		_, only, one := strings.Cut(name, ", ")
		for _, level := range levels {
			if one && !strings.HasPrefix(level, strings.ReplaceAll(only, " ", "")) {
				continue
			}
			w := mustDecode(t, some(t, level))
			test.edit(w)
			q, err := read(w.finished())
			var format *FormatError
			switch {
			case !errors.As(err, &format):
				t.Errorf("%s, %s: %+v, %v", level, name, q, err)
			case format.Field != test.field || format.Level != w.Level:
				t.Errorf("%s, %s: %v; want it about %s", level, name, err, test.field)
			case q != nil:
				t.Errorf("%s, %s: a request is returned: %+v", level, name, q)
			}
		}
	}
}

// TestTextsEnd has strings that do not end as one does.
func TestTextsEnd(t *testing.T) {
	texts := 0
	for _, s := range samples(t) {
		_, fields := mustDecode(t, s.b).encode()
		for i, f := range fields {
			if f.kind != content || i < 2 || fields[i-2].kind != offset { // before a string are its offset and its length
				continue
			}
			texts++
			b := bytes.Clone(s.b)
			b[f.at+f.size-1] = 'x'
			_, err := read(b)
			var format *FormatError
			if !errors.As(err, &format) || format.Offset != f.at {
				t.Errorf("%s, %s at %d does not end: %v", s.name, f.name, f.at, err)
			}
		}
	}
	if texts == 0 {
		t.Error("there are no strings")
	}
}

// TestEmptyText has a string of no bytes, which lacks even its NUL.
func TestEmptyText(t *testing.T) {
	for _, s := range samples(t) {
		w := mustDecode(t, s.b)
		w.Sanitized.Text = "abc"
		b := w.finished()
		b = b[:len(b)-4] // its characters and the NUL
		clear(b[len(b)-12:])
		_, err := read(relength(b))
		wantFormatError(t, err, "sanitized_username")
	}
}

func TestAccepted(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(w *wire)
		want func(q *Request)
	}{
		"what is in no sample": {func(w *wire) {
			w.Principal, w.Constructed, w.DNSDomain = pointed("alice@TEST.EXAMPLE"), 1, pointed("test.example")
		}, func(q *Request) {
			q.Session.Principal, q.Session.PrincipalConstructed, q.Session.DNSDomain = "alice@TEST.EXAMPLE", true, "test.example"
		}},
		"as little as can be": {func(w *wire) {
			w.Domain, w.Others, w.Groups = text{}, [6]text{}, nil
		}, func(q *Request) {
			q.Session.Domain, q.Session.Groups = "", nil
		}},
		"empty strings": {func(w *wire) {
			w.Domain, w.Account, w.UnixName, w.ClientName, w.ServerName = pointed(""), pointed(""), pointed(""), pointed(""), pointed("")
		}, func(q *Request) {
			q.Session.Domain, q.Session.Account, q.Session.UnixName, q.ClientName, q.ServerName = "", "", "", "", ""
		}},
		"not ASCII": {func(w *wire) {
			w.Account, w.Domain = pointed("Zoë 王"), pointed("\U0001f511")
		}, func(q *Request) {
			q.Session.Account, q.Session.Domain = "Zoë 王", "\U0001f511"
		}},
		"ids at their ends": {func(w *wire) {
			w.UID, w.GID, w.Groups = 0, math.MaxUint32-1, []uint64{0, math.MaxUint32 - 1}
		}, func(q *Request) {
			q.Session.UID, q.Session.GID, q.Session.Groups = 0, math.MaxUint32-1, []uint32{0, math.MaxUint32 - 1}
		}},
		"numbers that say nothing here": {func(w *wire) {
			w.Privileges, w.Rights, w.Ticket, w.EvaluateClaims = math.MaxUint64, math.MaxUint32, 2, 2
			w.Logons, w.BadPasswords, w.AccountFlags, w.UserFlags, w.NeedIdle = 1, 2, math.MaxUint32, 1, 1
			w.ID, w.Times = [16]byte{1, 15: 2}, [6]uint64{1, 2, 3, math.MaxUint64, 5, 6}
		}, func(*Request) {}},
		"ports at their ends": {func(w *wire) { w.ClientPort, w.ServerPort = 0, 65535 }, func(q *Request) {
			q.Client, q.Server = netip.AddrPortFrom(q.Client.Addr(), 0), netip.AddrPortFrom(q.Server.Addr(), 65535)
		}},
	} {
		for _, s := range samples(t) {
			w := mustDecode(t, s.b)
			if s.want.Client.Addr().Is6() {
				continue
			}
			test.edit(w)
			want := s.want
			test.want(&want)
			got, err := read(w.finished())
			if err != nil || !reflect.DeepEqual(*got, want) {
				t.Errorf("%s, %s: got %+v, %v, want %+v", s.name, name, got, err, want)
			}
		}
	}
}

// TestUserFlags: the word after the account's flags is a byte and padding in Samba 4.17 and 4.18, and a word in 4.19, both of
// level 7. It may be anything.
func TestUserFlags(t *testing.T) {
	for _, name := range []string{"level7-ntlm", "level8-ntlm"} {
		w := mustDecode(t, some(t, name))
		for _, flags := range []uint32{0, 1, 0x120, math.MaxUint32} {
			w.UserFlags = flags
			if q, err := read(w.finished()); err != nil || !q.Session.Authenticated {
				t.Errorf("%s, %#x: %+v, %v", name, flags, q, err)
			}
		}
	}
}
