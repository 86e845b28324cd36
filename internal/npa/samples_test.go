package npa

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The samples in testdata are what smbd sent, 4.17.12 (Debian 12) in level 7 and 4.22.11 (Debian 13) in level 8, to clients that
// opened the pipe "lsarpc". Only the session keys were overwritten with zeros. There was no smbd that speaks level 5: see [level5Of].

const (
	domain417  = "S-1-5-21-1640718213-3762149022-2528875310-"
	domain422  = "S-1-5-21-956953068-1529239730-3858912364-"
	older417   = "S-1-5-21-576306354-3196764516-1725575979-" // each setup of the machine made it another domain
	older422   = "S-1-5-21-1648617989-1978355414-3556897491-"
	forced417  = "S-1-5-21-1575532190-3406113696-42375594-"
	guests417  = "S-1-5-21-2765939370-1082745577-1048452274-"
	machine417 = "S-1-5-21-819194998-4154750624-356166183-"
	domainAD   = "S-1-5-21-3484520677-3135305772-1818770298-" // of a domain, whose member smbd is
	machine422 = "S-1-5-21-4032339420-2715167142-3828971776-"
)

func request(level uint32, host string, port uint16, s Session) Request {
	a := netip.MustParseAddr(host)
	return Request{
		Level: level, Client: netip.AddrPortFrom(a, port), ClientName: "machine1",
		Server: netip.AddrPortFrom(a, 14450), ServerName: "machine1", Session: s,
	}
}

// alice is a user in three groups besides her own.
func alice(domain string) Session {
	return Session{
		UID: 1001, GID: 1001, Groups: []uint32{1001, 2001, 2002, 70000},
		Account: "alice", Domain: "MACHINE1", UnixName: "alice",
		SIDs: []string{
			domain + "1000", domain + "513", "S-1-22-2-1001", "S-1-22-2-2001", "S-1-22-2-2002", "S-1-22-2-70000",
			"S-1-1-0", "S-1-5-2", "S-1-5-11", "S-1-22-1-1001",
		},
		Authenticated: true,
	}
}

func bob(domain string) Session {
	return Session{
		UID: 1002, GID: 1002, Groups: []uint32{1002}, Account: "bob", Domain: "MACHINE1", UnixName: "bob",
		SIDs:          []string{domain + "1001", domain + "513", "S-1-22-2-1002", "S-1-1-0", "S-1-5-2", "S-1-5-11", "S-1-22-1-1002"},
		Authenticated: true,
	}
}

func encrypted(s Session, d Dialect, c Cipher) Session {
	s.Encrypted, s.Dialect, s.Cipher = true, d, c
	return s
}

// of is s, with an account of another domain.
func of(s Session, domain string) Session {
	s.Domain = domain
	return s
}

func stranger(domain string) Session {
	return Session{
		UID: 65534, GID: 65534, Groups: []uint32{65534}, Account: "nobody", Domain: "MACHINE1", UnixName: "nobody",
		SIDs:  []string{domain + "501", domain + "514", "S-1-22-2-65534", "S-1-1-0", "S-1-5-2", "S-1-5-32-546", "S-1-22-1-65534"},
		Guest: true,
	}
}

// forced is what any user is with "force user = bob" in smb.conf.
func forced(domain string) Session {
	s := bob(domain)
	s.SIDs = slices.Delete(s.SIDs, 1, 2) // a made-up session is in no domain group
	return s
}

// forcedGuest is what a client without an account is with it: bob in all but that he is not authenticated.
func forcedGuest(domain string) Session {
	s := forced(domain)
	s.Groups = append(s.Groups, 65534)
	s.SIDs = []string{domain + "1001", "S-1-22-2-1002", "S-1-22-2-65534", "S-1-1-0", "S-1-5-2", "S-1-5-32-546", "S-1-22-1-1002"}
	s.Authenticated, s.Guest = false, true
	return s
}

var anonymous = Session{
	UID: 65534, GID: 65534, Groups: []uint32{65534}, Account: "ANONYMOUS LOGON", Domain: "NT AUTHORITY", UnixName: "nobody",
	SIDs:      []string{"S-1-5-7", "S-1-1-0", "S-1-5-2", "S-1-22-1-65534", "S-1-22-2-65534"},
	Anonymous: true,
}

// recorded is what the samples say.
var recorded = map[string]Request{
	"level7-ntlm":          request(7, "127.0.0.1", 50740, alice(domain417)),
	"level7-ntlm-nogroups": request(7, "127.0.0.1", 50744, bob(domain417)),
	"level7-ntlm-ipv6":     request(7, "::1", 44240, alice(domain417)),
	"level7-kerberos":      request(7, "127.0.0.1", 50776, of(alice(domain417), "TEST")),
	"level7-pac": {
		Level: 7, Client: netip.MustParseAddrPort("10.9.0.3:45516"), ClientName: "member",
		Server: netip.MustParseAddrPort("10.9.0.2:445"), ServerName: "member",
		Session: Session{
			UID: 101103, GID: 100513, Groups: []uint32{101103, 100513, 101107, 101108, 3003, 3004, 3006, 3001},
			Account: "alice", Domain: "AD", UnixName: `AD\alice`,
			SIDs: []string{
				domainAD + "1103", domainAD + "513", domainAD + "1107", domainAD + "1108",
				"S-1-18-1", "S-1-1-0", "S-1-5-2", "S-1-5-11", "S-1-5-32-545", "S-1-22-1-101103",
				"S-1-22-2-100513", "S-1-22-2-101103", "S-1-22-2-101107", "S-1-22-2-101108", "S-1-22-2-3003", "S-1-22-2-3004", "S-1-22-2-3006", "S-1-22-2-3001",
			},
			Authenticated: true,
		},
	},
	"level7-encryption-required": request(7, "127.0.0.1", 50802, encrypted(alice(domain417), SMB311, AES128GCM)),
	"level7-encrypted-aes256":    request(7, "127.0.0.1", 50768, encrypted(alice(domain417), SMB311, AES256GCM)),
	"level7-encrypted-300":       request(7, "127.0.0.1", 48414, encrypted(alice(older417), SMB300, AES128CCM)),
	"level7-forced-user":         request(7, "127.0.0.1", 44984, forced(forced417)),
	"level7-forced-guest":        request(7, "127.0.0.1", 46534, forcedGuest(guests417)),
	"level7-guest":               request(7, "127.0.0.1", 43892, stranger(machine417)),
	"level7-anonymous":           request(7, "127.0.0.1", 50844, anonymous),
	"level8-ntlm":                request(8, "127.0.0.1", 50878, alice(domain422)),
	"level8-ntlm-ipv6":           request(8, "::1", 44254, alice(domain422)),
	"level8-encryption-required": request(8, "127.0.0.1", 50932, encrypted(alice(domain422), SMB311, AES128GCM)),
	"level8-encrypted-aes256":    request(8, "127.0.0.1", 50916, encrypted(alice(domain422), SMB311, AES256GCM)),
	"level8-encrypted-300":       request(8, "127.0.0.1", 48432, encrypted(alice(older422), SMB300, AES128CCM)),
	"level8-guest":               request(8, "127.0.0.1", 43920, stranger(machine422)),
	"level8-anonymous":           request(8, "127.0.0.1", 50966, anonymous),
}

// sample is one request and what it says.
type sample struct {
	name string
	b    []byte
	want Request
}

// key is the session key that the tests put into the samples in place of the zeros.
var key = []byte("\xd3\xa1\xb7\x95\xe9\x8f\xc5\xf1\xad\x9b\xe3\xbf\xd9\x87\xf7\xcb")

// samples returns all that was recorded, with [key] as the session key, and those of level 7 in level 5 too.
func samples(t testing.TB) []sample {
	t.Helper()
	all, err := allSamples()
	if err != nil {
		t.Fatal(err)
	}
	all = slices.Clone(all)
	for i := range all {
		all[i].b = bytes.Clone(all[i].b)
	}
	return all
}

var allSamples = sync.OnceValues(func() (all []sample, err error) {
	for name, want := range recorded {
		b, err := os.ReadFile(filepath.Join("testdata", name+".bin"))
		if err != nil {
			return nil, err
		}
		w, ok := decoded(b)
		if !ok {
			return nil, fmt.Errorf("the tests can't read %s", name)
		}
		w.Key = key
		all = append(all, sample{name, w.finished(), want})
		if want.Level == 7 {
			want.Level = 5
			all = append(all, sample{strings.Replace(name, "level7", "level5", 1), level5Of(w), want})
		}
	}
	slices.SortFunc(all, func(a, b sample) int { return strings.Compare(a.name, b.name) })
	return all, nil
})

// level5Of returns what smbd would have sent in level 5 in place of w, a request of level 7. What differs: after the
// pointer to the session there is a byte more, whether an idle server is needed, which is a flag of a SID in level 7.
// ("authenticated" has always been one byte, but only here are the ones after it certain to be padding.)
func level5Of(w *wire) []byte {
	five := *w
	five.Level, five.Again = 5, 5
	five.SIDs = slices.DeleteFunc(slices.Clone(w.SIDs), func(id []byte) bool { return bytes.Equal(id, rawSID(22, 2041152804, 0)) })
	return five.finished()
}

// some returns one sample.
func some(t testing.TB, name string) []byte {
	t.Helper()
	all := samples(t)
	i := slices.IndexFunc(all, func(s sample) bool { return s.name == name })
	if i < 0 {
		t.Fatalf("there is no sample %s", name)
	}
	return all[i].b
}

func TestSamples(t *testing.T) {
	levels := map[uint32]int{}
	for _, s := range samples(t) {
		levels[s.want.Level]++
		t.Run(s.name, func(t *testing.T) {
			got, err := ReadRequest(bytes.NewReader(s.b))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, s.want) {
				t.Errorf("got\n%+v, want\n%+v", *got, s.want)
			}
		})
	}
	if levels[5] == 0 || levels[7] == 0 || levels[8] == 0 {
		t.Errorf("samples of each level: %v", levels)
	}
}

// TestTheTestsKnowTheFormat is what makes the samples of level 5 worth something: the code that writes them writes the
// recorded ones of the other levels exactly as smbd did.
func TestTheTestsKnowTheFormat(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bin")
	if err != nil || len(files) != len(recorded) {
		t.Fatalf("%d files, %v; expected is one for each of %d samples", len(files), err, len(recorded))
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		w := mustDecode(t, b)
		if n := len(w.Key); n != 16 && (n != 0 || !strings.Contains(file, "forced-")) || len(bytes.Trim(w.Key, "\x00")) > 0 {
			t.Errorf("%s: the session key is not 16 zeros, or none for a session that was made up", file)
		}
		if len(w.Rest) > 0 {
			t.Errorf("%s: %d bytes are left over", file, len(w.Rest))
		}
		if again, _ := w.encode(); !bytes.Equal(again, b) {
			t.Errorf("%s: written again it is\n%x, and was\n%x", file, again, b)
		}
	}
}
