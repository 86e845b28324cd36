package smb

import (
	"context"
	"crypto/rand"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/jcmturner/gokrb5/v8/asn1tools"
	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/gssapi"
	"github.com/jcmturner/gokrb5/v8/iana"
	"github.com/jcmturner/gokrb5/v8/iana/chksumtype"
	"github.com/jcmturner/gokrb5/v8/iana/errorcode"
	"github.com/jcmturner/gokrb5/v8/iana/flags"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/spnego"
	"github.com/jcmturner/gokrb5/v8/types"
)

// clock is the time that Kerberos goes by. Tests set it.
var clock = time.Now

// serverPrincipal returns the principal of the server, and its realm if that is known.
func (d *Dialer) serverPrincipal(t target, conf *krb5Conf) (name types.PrincipalName, realm string, err error) {
	spn := d.Principal
	if spn == "" {
		if t.addr.IsValid() {
			return name, "", fmt.Errorf("%w: %s is an address, and Kerberos knows machines by name; call it by its name, or set Dialer.Principal", ErrPrincipal, t.host)
		}
		spn = "cifs/" + strings.ToLower(strings.TrimSuffix(t.host, "."))
	}
	spn, realm, _ = strings.Cut(spn, "@")
	name = types.PrincipalName{NameType: nametype.KRB_NT_SRV_HST, NameString: strings.Split(spn, "/")}
	if len(name.NameString) == 1 {
		name.NameType = nametype.KRB_NT_PRINCIPAL
	}
	for _, part := range name.NameString {
		if part == "" {
			return name, "", fmt.Errorf("%w: %q is no principal", ErrPrincipal, d.Principal)
		}
	}
	if name.NameString[0] == ticketServer {
		return name, "", fmt.Errorf("%w: %q is the KDC's", ErrPrincipal, d.Principal)
	}
	if realm == "" {
		realm = conf.realmOf(name.NameString[len(name.NameString)-1])
	}
	return name, realm, nil
}

// kerberos returns an initiator that speaks for the caller, with a ticket of the caller's own cache.
func (d *Dialer) kerberos(ctx context.Context, t target, who caller) (_ *krb5Initiator, err error) {
	defer func() {
		if v := recover(); v != nil { // gokrb5, about what a KDC says
			err = fmt.Errorf("%w: what the KDC says can't be read: %v", ErrProtocol, v)
		}
	}()
	conf, err := loadConf(confFiles(who.worn != nil))
	if err != nil {
		return nil, err
	}
	server, realm, err := d.serverPrincipal(t, conf)
	if err != nil {
		return nil, err
	}
	cache, err := who.cache(ctx, conf)
	if err != nil {
		return nil, err
	}
	now := clock()
	have, ok := cache.find(server.NameString, realm, now)
	if !ok || have.expired(now) {
		home := cache.client.realm
		tgt, ok := cache.find([]string{ticketServer, home}, home, now)
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: the credential cache of %v has no ticket of %s for getting others; log in with kinit", ErrNoTicket, who, cache.client)
		case tgt.expired(now):
			return nil, fmt.Errorf("%w: that of %s, in the credential cache of %v, ended at %s, and this machine's clock says %s; log in with kinit again", ErrTicketExpired, cache.client, who, clockTime(tgt.end), clockTime(now))
		}
		if have, err = (kdc{conf: conf, now: clock}).serviceTicket(ctx, tgt, server, realm); err != nil {
			return nil, fmt.Errorf("a ticket of %s for %s: %w", cache.client, server.PrincipalNameString(), err)
		}
	}
	return newKrb5Initiator(have)
}

func authenticator(client principal, now time.Time) (types.Authenticator, error) {
	now = now.UTC()
	sequence, err := rand.Int(rand.Reader, big.NewInt(1<<30))
	if err != nil {
		return types.Authenticator{}, err
	}
	return types.Authenticator{
		AVNO:      iana.PVNO,
		CRealm:    client.realm,
		CName:     client.name,
		Cusec:     now.Nanosecond() / 1000,
		CTime:     now.Truncate(time.Second),
		SeqNumber: sequence.Int64(),
	}, nil
}

// krb5Initiator proves with a ticket who calls, and has the server prove who it is. go-smb2's own does not compare the time in the
// server's answer with the one that was sent, and panics where the server sends no key.
type krb5Initiator struct {
	ticket ticket
	auth   types.Authenticator
	key    types.EncryptionKey // of the session, once the server has answered
	flags  byte                // of a MIC token
	err    error               // the first, as go-smb2 keeps only its text
}

var oidKrb5 = asn1.ObjectIdentifier{1, 2, 840, 113554, 1, 2, 2}

var errShortKey = errors.New("the key is shorter than 16 bytes")

const sessionKeySize = 16

func newKrb5Initiator(t ticket) (*krb5Initiator, error) {
	etype, err := crypto.GetEtype(t.key.KeyType)
	if err != nil {
		return nil, fmt.Errorf("%w: the ticket for %s: %w", ErrConfig, t.server, err)
	}
	if len(t.key.KeyValue) != etype.GetKeyByteSize() || len(t.key.KeyValue) < sessionKeySize {
		return nil, fmt.Errorf("%w: the ticket for %s: %w", ErrNoTicket, t.server, errShortKey)
	}
	auth, err := authenticator(t.client, clock())
	if err != nil {
		return nil, err
	}
	if auth.SubKey, err = types.GenerateEncryptionKey(etype); err != nil {
		return nil, err
	}
	return &krb5Initiator{ticket: t, auth: auth}, nil
}

// OID returns Kerberos's.
func (i *krb5Initiator) OID() asn1.ObjectIdentifier { return oidKrb5 }

// InitSecContext returns the first token, an AP-REQ that asks for mutual authentication.
func (i *krb5Initiator) InitSecContext() ([]byte, error) {
	sum := make([]byte, 24)
	binary.LittleEndian.PutUint32(sum, 16)
	binary.LittleEndian.PutUint32(sum[20:], gssapi.ContextFlagMutual|gssapi.ContextFlagConf|gssapi.ContextFlagInteg)
	i.auth.Cksum = types.Checksum{CksumType: chksumtype.GSSAPI, Checksum: sum}
	request, err := messages.NewAPReq(i.ticket.ticket, i.ticket.key, i.auth)
	if err != nil {
		return nil, i.fail(fmt.Errorf("using the ticket for %s: %w", i.ticket.server, err))
	}
	types.SetFlag(&request.APOptions, flags.APOptionMutualRequired)
	data, err := request.Marshal()
	if err != nil {
		return nil, i.fail(err)
	}
	oid, err := asn1.Marshal(oidKrb5)
	if err != nil {
		return nil, i.fail(err)
	}
	return asn1tools.AddASNAppTag(append(append(oid, 1, 0), data...), 0), nil
}

// AcceptSecContext takes the server's answer, an AP-REP or an error.
func (i *krb5Initiator) AcceptSecContext(answer []byte) ([]byte, error) {
	var token spnego.KRB5Token
	if err := token.Unmarshal(answer); err != nil {
		return nil, i.fail(fmt.Errorf("%w: its answer to the ticket can't be read", ErrProtocol))
	}
	switch {
	case token.IsKRBError():
		return nil, i.fail(serverRefused(token.KRBError, i.ticket.server))
	case !token.IsAPRep():
		return nil, i.fail(fmt.Errorf("%w: it answered the ticket with something else", ErrProtocol))
	}
	data, err := crypto.DecryptEncPart(token.APRep.EncPart, i.ticket.key, keyusage.AP_REP_ENCPART)
	if err != nil {
		return nil, i.fail(fmt.Errorf("%w: it does not prove to be %s", ErrPrincipal, i.ticket.server))
	}
	var part messages.EncAPRepPart
	if err := part.Unmarshal(data); err != nil {
		return nil, i.fail(fmt.Errorf("%w: its answer to the ticket can't be read", ErrProtocol))
	}
	if part.CTime.Unix() != i.auth.CTime.Unix() || part.Cusec != i.auth.Cusec {
		return nil, i.fail(fmt.Errorf("%w: it does not prove to be %s: its answer is to another request", ErrPrincipal, i.ticket.server))
	}
	key := i.auth.SubKey
	if len(part.Subkey.KeyValue) > 0 {
		key = part.Subkey
		i.flags = gssapi.MICTokenFlagAcceptorSubkey
	}
	etype, err := crypto.GetEtype(key.KeyType)
	if err != nil || len(key.KeyValue) != etype.GetKeyByteSize() || len(key.KeyValue) < sessionKeySize {
		return nil, i.fail(fmt.Errorf("%w: its key can't be used", ErrProtocol))
	}
	i.key = key
	return []byte{}, nil
}

// Sum returns the MIC of data.
func (i *krb5Initiator) Sum(data []byte) []byte {
	token := gssapi.MICToken{Flags: i.flags, SndSeqNum: uint64(i.auth.SeqNumber), Payload: data}
	if token.SetChecksum(i.key, keyusage.GSSAPI_INITIATOR_SIGN) != nil {
		return nil
	}
	sum, err := token.Marshal()
	if err != nil {
		return nil
	}
	return sum
}

// SessionKey returns what SMB derives its keys from.
func (i *krb5Initiator) SessionKey() []byte { return i.key.KeyValue[:sessionKeySize:sessionKeySize] }

func (i *krb5Initiator) fail(err error) error {
	if i.err == nil {
		i.err = err
	}
	return err
}

// serverRefused says why a server does not take a ticket.
func serverRefused(e messages.KRBError, server principal) error {
	said := "the server says " + krbErrorText(e)
	switch e.ErrorCode {
	case errorcode.KRB_AP_ERR_SKEW, errorcode.KRB_AP_ERR_TKT_NYV:
		return clockError(said, e.STime, clock())
	case errorcode.KRB_AP_ERR_TKT_EXPIRED:
		return fmt.Errorf("%w: %s; log in with kinit again", ErrTicketExpired, said)
	}
	return fmt.Errorf("%w: %s of the ticket for %s; does its keytab have the current key of that principal?", ErrPrincipal, said, server)
}
