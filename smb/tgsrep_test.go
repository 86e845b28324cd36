package smb

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
)

// grant is what a KDC answers a request with, of one who has the key of the ticket that it was made with.
type grant struct {
	client     types.PrincipalName
	clientOf   string
	server     types.PrincipalName // in the part that is sealed
	ticketFor  types.PrincipalName // in the ticket
	realm      string
	nonce      int
	start, end time.Time
	with       types.EncryptionKey
}

func grantFor(request messages.TGSReq, tgt ticket) grant {
	return grant{
		client: tgt.client.name, clientOf: tgt.client.realm,
		server: request.ReqBody.SName, ticketFor: request.ReqBody.SName, realm: request.ReqBody.Realm,
		nonce: request.ReqBody.Nonce, start: time.Now().UTC(), end: time.Now().Add(time.Hour).UTC(), with: tgt.key,
	}
}

func (g grant) reply(t *testing.T) []byte {
	t.Helper()
	part := messages.EncKDCRepPart{
		Key: aKey(), LastReqs: []messages.LastReq{{LRValue: time.Now().UTC()}}, Nonce: g.nonce, Flags: types.NewKrbFlags(),
		AuthTime: g.start, StartTime: g.start, EndTime: g.end, SRealm: g.realm, SName: g.server,
	}
	plain, err := part.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := crypto.GetEncryptedData(plain, g.with, keyusage.TGS_REP_ENCPART_SESSION_KEY, 0)
	if err != nil {
		t.Fatal(err)
	}
	reply := messages.TGSRep{KDCRepFields: messages.KDCRepFields{
		PVNO: 5, MsgType: 13, CRealm: g.clientOf, CName: g.client, EncPart: sealed,
		Ticket: messages.Ticket{TktVNO: 5, Realm: g.realm, SName: g.ticketFor, EncPart: types.EncryptedData{EType: 18, KVNO: 1, Cipher: make([]byte, 60)}},
	}}
	data, err := reply.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func service(name ...string) types.PrincipalName {
	return types.PrincipalName{NameType: nametype.KRB_NT_SRV_INST, NameString: name}
}

// An answer to somebody else's request, or about somebody else's ticket, is none, whoever made it.
func TestTicketsOfKDCs(t *testing.T) {
	k := kdcAt()
	tgt := aTGT(t)
	request, err := k.request("A.TEST", tgt, aServer)
	if err != nil {
		t.Fatal(err)
	}
	otherKey := aKey()
	otherKey.KeyValue[0]++
	for _, test := range []struct {
		name   string
		change func(*grant)
		want   error
	}{
		{"right", func(*grant) {}, nil},
		{"a referral", func(g *grant) { g.server, g.ticketFor = service("krbtgt", "B.TEST"), service("krbtgt", "B.TEST") }, nil},
		{"another nonce", func(g *grant) { g.nonce++ }, ErrProtocol},
		{"another client", func(g *grant) { g.client = service("bob") }, ErrProtocol},
		{"another client's realm", func(g *grant) { g.clientOf = "B.TEST" }, ErrProtocol},
		{"another server", func(g *grant) { g.server, g.ticketFor = service("cifs", "other"), service("cifs", "other") }, ErrProtocol},
		{"another ticket", func(g *grant) { g.ticketFor = service("cifs", "other") }, ErrProtocol},
		{"another realm", func(g *grant) { g.realm = "B.TEST" }, ErrProtocol},
		{"no server", func(g *grant) { g.server, g.ticketFor = service(), service() }, ErrProtocol},
		{"another key", func(g *grant) { g.with = otherKey }, ErrProtocol},
		{"not yet", func(g *grant) { g.start = g.start.Add(time.Hour) }, ErrClock},
		{"over", func(g *grant) { g.end = g.end.Add(-2 * time.Hour) }, ErrClock},
	} {
		g := grantFor(request, tgt)
		test.change(&g)
		got, err := k.accept(g.reply(t), request, tgt)
		if test.want == nil && (err != nil || got.server.name.NameString[0] == "") || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, %v; want %v", test.name, got.server, err, test.want)
		}
	}
}

// A server in another realm is found by way of the KDC that the client's KDC refers to.
func TestReferrals(t *testing.T) {
	tgt := aTGT(t)
	var mu sync.Mutex
	var asked []string
	kdcOf := func(realm, refersTo string) string {
		return serve(t, func(c net.Conn) {
			var request messages.TGSReq
			if request.Unmarshal(readFrame(c)) != nil {
				return
			}
			mu.Lock()
			asked = append(asked, realm+" for "+request.ReqBody.SName.PrincipalNameString())
			mu.Unlock()
			g := grantFor(request, tgt)
			if refersTo != "" {
				g.server, g.ticketFor = service("krbtgt", refersTo), service("krbtgt", refersTo)
			}
			c.Write(frame(g.reply(t)))
		})
	}
	k := kdcAt()
	k.conf.realms = map[string][]string{"A.TEST": {kdcOf("A.TEST", "B.TEST")}, "B.TEST": {kdcOf("B.TEST", "")}}
	got, err := k.serviceTicket(within(t, 20*time.Second), tgt, aServer, "")
	if err != nil || got.server.realm != "B.TEST" || len(asked) != 2 || asked[1] != "B.TEST for cifs/host" {
		t.Errorf("%v, %v; asked %q", got.server, err, asked)
	}

	asked = nil
	got, err = k.serviceTicket(within(t, 20*time.Second), tgt, aServer, "B.TEST")
	if err != nil || got.server.realm != "B.TEST" || len(asked) != 2 || asked[0] != "A.TEST for krbtgt/B.TEST" {
		t.Errorf("with the realm known: %v, %v; asked %q", got.server, err, asked)
	}

	k.conf.realms["B.TEST"] = []string{kdcOf("B.TEST", "A.TEST")}
	asked = nil
	if _, err := k.serviceTicket(within(t, 20*time.Second), tgt, aServer, ""); !errors.Is(err, ErrPrincipal) || len(asked) != mostRealms {
		t.Errorf("KDCs that refer to one another: %v; asked %d times", err, len(asked))
	}
	k.conf.realms["A.TEST"] = []string{kdcOf("A.TEST", "A.TEST")}
	if _, err := k.serviceTicket(within(t, 20*time.Second), tgt, aServer, ""); !errors.Is(err, ErrPrincipal) {
		t.Errorf("a KDC that refers to itself: %v", err)
	}
}
