package smb

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/iana/errorcode"
	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
)

func aTGT(t *testing.T) ticket {
	t.Helper()
	c, err := parseCache(ccacheOf("alice@A.TEST", entry(t, "krbtgt/A.TEST@A.TEST", time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	return c.tickets[0]
}

var aServer = types.PrincipalName{NameType: nametype.KRB_NT_SRV_HST, NameString: []string{"cifs", "host"}}

func kdcAt(addresses ...string) kdc {
	return kdc{conf: &krb5Conf{clockSkew: 5 * time.Minute, lifetime: time.Hour, etypes: defaultETypes, realms: map[string][]string{"A.TEST": addresses}}, now: time.Now}
}

func krbError(t *testing.T, code int32, at time.Time) []byte {
	t.Helper()
	e := messages.NewKRBError(aServer, "A.TEST", code, "because")
	e.STime = at.UTC()
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatKDCsSay(t *testing.T) {
	for _, test := range []struct {
		code int32
		off  time.Duration
		want error
		says string
	}{
		{errorcode.KDC_ERR_S_PRINCIPAL_UNKNOWN, 0, ErrPrincipal, "cifs/host"},
		{errorcode.KRB_AP_ERR_SKEW, -10 * time.Minute, ErrClock, "s behind"},
		{errorcode.KRB_AP_ERR_SKEW, time.Hour, ErrClock, "s ahead of"},
		{errorcode.KRB_AP_ERR_TKT_EXPIRED, 0, ErrTicketExpired, "kinit"},
		{errorcode.KDC_ERR_CLIENT_REVOKED, 0, ErrLogon, ""},
		{errorcode.KRB_AP_ERR_BAD_INTEGRITY, 0, ErrNoTicket, "kinit"},
		{errorcode.KDC_ERR_ETYPE_NOSUPP, 0, ErrConfig, ""},
		{errorcode.KRB_ERR_GENERIC, 0, nil, "because"},
	} {
		data := krbError(t, test.code, time.Now().Add(test.off))
		address := serve(t, func(c net.Conn) {
			readFrame(c)
			c.Write(frame(data))
		})
		_, err := kdcAt(address).serviceTicket(within(t, 20*time.Second), aTGT(t), aServer, "")
		if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), address) {
			t.Errorf("%d: %v; want %v", test.code, err, test.want)
		}
		t.Log(err)
	}
}

func TestHostileKDCs(t *testing.T) {
	for _, test := range []struct {
		name  string
		serve func(net.Conn)
		want  error
		slow  bool
	}{
		{name: "ends", serve: func(net.Conn) {}, want: ErrNoKDC},
		{name: "ends when asked", serve: func(c net.Conn) { readFrame(c) }, want: ErrNoKDC},
		{name: "says nothing", serve: waitEnd, slow: true},
		{name: "huge", serve: func(c net.Conn) { c.Write([]byte("\xff\xff\xff\xff")); waitEnd(c) }, want: ErrNoKDC},
		{name: "large", serve: func(c net.Conn) { c.Write([]byte("\x7f\xff\xff\xff")); waitEnd(c) }, want: ErrNoKDC},
		{name: "empty", serve: func(c net.Conn) { c.Write(make([]byte, 4)); waitEnd(c) }, want: ErrNoKDC},
		{name: "garbage", serve: func(c net.Conn) { readFrame(c); c.Write(frame([]byte("garbage"))) }, want: ErrProtocol},
		{name: "drips", serve: func(c net.Conn) {
			readFrame(c)
			c.Write([]byte{0, 0, 1, 0})
			for {
				if _, err := c.Write([]byte{1}); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}, slow: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := serve(t, test.serve)
			limit := 20 * time.Second
			if test.slow {
				limit = 300 * time.Millisecond
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			begun := time.Now()
			_, err := kdcAt(address).serviceTicket(within(t, limit), aTGT(t), aServer, "")
			if took := time.Since(begun); took > 10*time.Second || test.slow && took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if err == nil || test.want != nil && !errors.Is(err, test.want) || errors.Is(err, io.EOF) && !errors.Is(err, ErrNoKDC) {
				t.Errorf("%v; want %v", err, test.want)
			}
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > 8<<20 {
				t.Errorf("%d bytes were allocated", got)
			}
		})
	}
}

// An answer to somebody else's request is none, whoever made it.
func TestAnswersOfKDCsAreChecked(t *testing.T) {
	k := kdcAt()
	tgt := aTGT(t)
	request, err := k.request("A.TEST", tgt, aServer)
	if err != nil {
		t.Fatal(err)
	}
	for _, answer := range [][]byte{nil, {0}, []byte("garbage"), krbError(t, 7, time.Now())} {
		if _, err := k.accept(answer, request, tgt); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %v", answer, err)
		}
	}
}

func TestAddressesOfKDCs(t *testing.T) {
	for s, want := range map[string]string{
		"kdc": "kdc:88", "kdc:99": "kdc:99", "[::1]:99": "[::1]:99", "[::1]": "[::1]:88", "::1": "[::1]:88", "tcp/kdc": "kdc:88", "udp/kdc:1": "kdc:1", "192.0.2.1": "192.0.2.1:88", "https://kdc/x": "", "": "",
	} {
		if got, ok := kdcAddress(s); got != want || ok != (want != "") {
			t.Errorf("%q is %q, %v; want %q", s, got, ok, want)
		}
	}
	if _, err := kdcAt().addresses(t.Context(), "A.TEST"); !errors.Is(err, ErrNoKDC) {
		t.Error(err)
	}
	if _, err := kdcAt("https://kdc/x").addresses(t.Context(), "A.TEST"); !errors.Is(err, ErrNoKDC) {
		t.Error(err)
	}
}

// A server's proof has to be about this request, and its key has to be one.
func TestServersProof(t *testing.T) {
	initiator, err := newKrb5Initiator(aTGT(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := initiator.InitSecContext(); err != nil {
		t.Fatal(err)
	}
	usec := initiator.auth.Cusec
	subkey := types.EncryptionKey{KeyType: 18, KeyValue: make([]byte, 32)}
	for _, test := range []struct {
		name string
		part encAPRepPart
		want error
	}{
		{"right", encAPRepPart{CTime: initiator.auth.CTime, Cusec: usec, Subkey: subkey, SequenceNumber: 1}, nil},
		{"without a key", encAPRepPart{CTime: initiator.auth.CTime, Cusec: usec, SequenceNumber: 1}, nil},
		{"another second", encAPRepPart{CTime: initiator.auth.CTime.Add(time.Second), Cusec: usec, Subkey: subkey}, ErrPrincipal},
		{"another microsecond", encAPRepPart{CTime: initiator.auth.CTime, Cusec: (usec + 1) % 1000000, Subkey: subkey}, ErrPrincipal},
		{"a short key", encAPRepPart{CTime: initiator.auth.CTime, Cusec: usec, Subkey: types.EncryptionKey{KeyType: 18, KeyValue: []byte{1}}}, ErrProtocol},
		{"an unknown key", encAPRepPart{CTime: initiator.auth.CTime, Cusec: usec, Subkey: types.EncryptionKey{KeyType: 99, KeyValue: make([]byte, 32)}}, ErrProtocol},
	} {
		i := *initiator
		_, err := i.AcceptSecContext(apRep(t, initiator.ticket.key, test.part))
		if test.want == nil && (err != nil || len(i.SessionKey()) != 16) || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v; want %v", test.name, err, test.want)
		}
		if test.want != nil && !errors.Is(i.err, test.want) {
			t.Errorf("%s: it was not kept: %v", test.name, i.err)
		}
	}
	i := *initiator
	other := aKey()
	other.KeyValue[0]++
	if _, err := i.AcceptSecContext(apRep(t, other, encAPRepPart{CTime: initiator.auth.CTime, Cusec: usec, Subkey: subkey})); !errors.Is(err, ErrPrincipal) {
		t.Errorf("of one who does not have the key: %v", err)
	}
	for _, garbage := range [][]byte{nil, {0x60}, []byte("garbage")} {
		i := *initiator
		if _, err := i.AcceptSecContext(garbage); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %v", garbage, err)
		}
	}
	for code, want := range map[int32]error{errorcode.KRB_AP_ERR_SKEW: ErrClock, errorcode.KRB_AP_ERR_TKT_EXPIRED: ErrTicketExpired, errorcode.KRB_AP_ERR_MODIFIED: ErrPrincipal} {
		i := *initiator
		if _, err := i.AcceptSecContext(gssToken(t, 3, krbError(t, code, time.Now().Add(time.Hour)))); !errors.Is(err, want) {
			t.Errorf("error %d: %v; want %v", code, err, want)
		}
	}
	if _, err := newKrb5Initiator(ticket{key: types.EncryptionKey{KeyType: 18, KeyValue: []byte{1}}}); !errors.Is(err, ErrNoTicket) {
		t.Errorf("a ticket with a short key: %v", err)
	}
}
