package smb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/iana/errorcode"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/iana/patype"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
)

const (
	kdcTimeout   = 5 * time.Second // for each KDC, by TCP and by UDP
	longestReply = 1 << 20
	mostKDCs     = 16
	mostRealms   = 8
	ticketServer = "krbtgt"
)

// kdc asks KDCs for tickets. gokrb5's own client can't be ended before its time, takes a length that a KDC says at its word, starts
// goroutines to renew tickets, and says what went wrong in words only.
type kdc struct {
	conf *krb5Conf
	now  func() time.Time
}

// serviceTicket returns a ticket for a server, asking the KDCs of one realm after the other if it is in another one. An empty realm
// is for the KDC of the client's to know.
func (k kdc) serviceTicket(ctx context.Context, tgt ticket, server types.PrincipalName, realm string) (ticket, error) {
	at := tgt.server.name.NameString[1]
	for range mostRealms {
		want := server
		if realm != "" && realm != at {
			want = types.PrincipalName{NameType: nametype.KRB_NT_SRV_INST, NameString: []string{ticketServer, realm}}
		}
		got, err := k.ask(ctx, at, tgt, want)
		if err != nil {
			return ticket{}, err
		}
		name := got.server.name.NameString
		if name[0] != ticketServer || len(name) != 2 {
			return got, nil
		}
		if name[1] == at {
			break
		}
		tgt, at = got, name[1]
	}
	return ticket{}, fmt.Errorf("%w: the KDCs refer to one another for %s", ErrPrincipal, server.PrincipalNameString())
}

// ask asks a realm's KDC for one ticket.
func (k kdc) ask(ctx context.Context, realm string, tgt ticket, server types.PrincipalName) (ticket, error) {
	request, err := k.request(realm, tgt, server)
	if err != nil {
		return ticket{}, err
	}
	wire, err := request.Marshal()
	if err != nil {
		return ticket{}, fmt.Errorf("asking the KDC: %w", err)
	}
	answer, from, err := k.exchange(ctx, realm, wire)
	if err != nil {
		return ticket{}, err
	}
	var refusal messages.KRBError
	if refusal.Unmarshal(answer) == nil {
		return ticket{}, k.refused(refusal, realm, from, server)
	}
	t, err := k.accept(answer, request, tgt)
	if err != nil {
		return ticket{}, fmt.Errorf("the answer of the KDC %s of %s: %w", from, realm, err)
	}
	return t, nil
}

func (k kdc) request(realm string, tgt ticket, server types.PrincipalName) (messages.TGSReq, error) {
	etype, err := crypto.GetEtype(tgt.key.KeyType)
	if err != nil {
		return messages.TGSReq{}, fmt.Errorf("%w: the ticket for %s: %w", ErrConfig, tgt.server, err)
	}
	request, err := messages.NewTGSReq(tgt.client.name, realm, k.conf.library(), tgt.ticket, tgt.key, server, false)
	if err != nil {
		return request, fmt.Errorf("asking the KDC: %w", err)
	}
	// gokrb5 has its authenticator say the realm of the ticket, which is not the client's after the first referral.
	body, err := request.ReqBody.Marshal()
	if err != nil {
		return request, err
	}
	sum, err := etype.GetChecksumHash(tgt.key.KeyValue, body, keyusage.TGS_REQ_PA_TGS_REQ_AP_REQ_AUTHENTICATOR_CHKSUM)
	if err != nil {
		return request, err
	}
	auth, err := authenticator(tgt.client, k.now())
	if err != nil {
		return request, err
	}
	auth.Cksum = types.Checksum{CksumType: etype.GetHashID(), Checksum: sum}
	ap, err := messages.NewAPReq(tgt.ticket, tgt.key, auth)
	if err != nil {
		return request, err
	}
	data, err := ap.Marshal()
	if err != nil {
		return request, err
	}
	request.PAData = types.PADataSequence{{PADataType: patype.PA_TGS_REQ, PADataValue: data}}
	return request, nil
}

// accept makes a ticket of a KDC's answer, if it is one to this request. gokrb5 does not compare who the ticket is for.
func (k kdc) accept(answer []byte, request messages.TGSReq, tgt ticket) (ticket, error) {
	var reply messages.TGSRep
	if err := reply.Unmarshal(answer); err != nil {
		return ticket{}, fmt.Errorf("%w: it is no ticket", ErrProtocol)
	}
	if err := reply.DecryptEncPart(tgt.key); err != nil {
		return ticket{}, fmt.Errorf("%w: it is not made with the ticket's key", ErrProtocol)
	}
	part := reply.DecryptedEncPart
	asked := request.ReqBody.SName
	name := part.SName.NameString
	referral := len(name) == 2 && name[0] == ticketServer
	switch {
	case part.Nonce != request.ReqBody.Nonce:
		return ticket{}, fmt.Errorf("%w: it is to another request", ErrProtocol)
	case !reply.CName.Equal(tgt.client.name) || reply.CRealm != tgt.client.realm:
		return ticket{}, fmt.Errorf("%w: it is for another client", ErrProtocol)
	case len(name) == 0 || !reply.Ticket.SName.Equal(part.SName) || reply.Ticket.Realm != part.SRealm || part.SRealm != request.ReqBody.Realm:
		return ticket{}, fmt.Errorf("%w: its ticket is not the one that it speaks of", ErrProtocol)
	case !referral && !part.SName.Equal(asked):
		return ticket{}, fmt.Errorf("%w: the ticket is for %s instead of %s", ErrProtocol, part.SName.PrincipalNameString(), asked.PrincipalNameString())
	}
	t := ticket{
		client: tgt.client,
		server: principal{realm: part.SRealm, name: part.SName},
		key:    part.Key,
		start:  part.StartTime,
		end:    part.EndTime,
		ticket: reply.Ticket,
	}
	if t.start.IsZero() {
		t.start = part.AuthTime
	}
	if now := k.now(); t.start.Sub(now) > k.conf.clockSkew {
		return ticket{}, fmt.Errorf("%w: the ticket is valid from %s on, which is %v ahead of this machine's clock; set it by NTP", ErrClock, clockTime(t.start), t.start.Sub(now).Round(time.Second))
	} else if t.expired(now) {
		return ticket{}, fmt.Errorf("%w: the ticket that was just given ended at %s; this machine's clock says %s; compare them with the KDC's", ErrClock, clockTime(t.end), clockTime(now))
	}
	return t, nil
}

func clockTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// refused says why a KDC gave no ticket.
func (k kdc) refused(e messages.KRBError, realm, from string, server types.PrincipalName) error {
	said := fmt.Sprintf("the KDC %s of %s says %s", from, realm, krbErrorText(e))
	switch e.ErrorCode {
	case errorcode.KDC_ERR_S_PRINCIPAL_UNKNOWN:
		return fmt.Errorf("%w: %s for %s; use the name that the machine is registered with, or Dialer.Principal", ErrPrincipal, said, server.PrincipalNameString())
	case errorcode.KRB_AP_ERR_TKT_EXPIRED, errorcode.KDC_ERR_NEVER_VALID:
		return fmt.Errorf("%w: %s; log in with kinit again", ErrTicketExpired, said)
	case errorcode.KRB_AP_ERR_SKEW, errorcode.KRB_AP_ERR_TKT_NYV:
		return clockError(said, e.STime, k.now())
	case errorcode.KDC_ERR_C_PRINCIPAL_UNKNOWN, errorcode.KDC_ERR_CLIENT_REVOKED, errorcode.KDC_ERR_NAME_EXP, errorcode.KDC_ERR_POLICY:
		return fmt.Errorf("%w: %s", ErrLogon, said)
	case errorcode.KRB_AP_ERR_BAD_INTEGRITY, errorcode.KRB_AP_ERR_MODIFIED, errorcode.KRB_AP_ERR_NOT_US:
		return fmt.Errorf("%w: %s: the ticket in the cache is not this KDC's; log in with kinit again", ErrNoTicket, said)
	case errorcode.KDC_ERR_ETYPE_NOSUPP:
		return fmt.Errorf("%w: %s: it and this machine have no encryption type in common for %s", ErrConfig, said, server.PrincipalNameString())
	}
	return errors.New(said)
}

func krbErrorText(e messages.KRBError) string {
	text := errorcode.Lookup(e.ErrorCode)
	if e.EText != "" {
		text += fmt.Sprintf(" (%.200q)", e.EText)
	}
	return text
}

func clockError(said string, theirs, ours time.Time) error {
	if theirs.IsZero() || theirs.Unix() <= 0 {
		return fmt.Errorf("%w: %s; set the clocks by NTP", ErrClock, said)
	}
	off := theirs.Sub(ours).Round(time.Second)
	return fmt.Errorf("%w: %s: its clock is %v %s this machine's; set them by NTP", ErrClock, said, off.Abs(), aheadOrBehind(off))
}

func aheadOrBehind(d time.Duration) string {
	if d < 0 {
		return "behind"
	}
	return "ahead of"
}

// exchange sends a request to the realm's KDCs in turn and returns the first answer and whose it is.
func (k kdc) exchange(ctx context.Context, realm string, request []byte) (answer []byte, from string, err error) {
	addresses, err := k.addresses(ctx, realm)
	if err != nil {
		return nil, "", err
	}
	var errs []error
	for _, address := range addresses {
		for _, network := range []string{"tcp", "udp"} {
			if network == "udp" && len(request) > 60000 {
				continue
			}
			answer, err := ask(ctx, network, address, request)
			if err == nil {
				return answer, address, nil
			}
			if ctx.Err() != nil {
				return nil, "", fmt.Errorf("asking the KDC %s of %s: %w", address, realm, ctx.Err())
			}
			errs = append(errs, fmt.Errorf("%s by %s: %w", address, network, err))
		}
	}
	return nil, "", fmt.Errorf("%w: realm %s: %w; is the KDC up, and are its addresses in krb5.conf right?", ErrNoKDC, realm, join(errs))
}

// join is [errors.Join] on one line.
func join(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return joined(errs)
}

type joined []error

func (j joined) Error() string {
	var texts []string
	for _, err := range j {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

func (j joined) Unwrap() []error { return j }

// addresses returns where a realm's KDCs are: as krb5.conf says, else DNS.
func (k kdc) addresses(ctx context.Context, realm string) ([]string, error) {
	var list []string
	for _, s := range k.conf.realms[realm] {
		if address, ok := kdcAddress(s); ok {
			list = append(list, address)
		}
	}
	if len(k.conf.realms[realm]) > 0 {
		if len(list) == 0 {
			return nil, fmt.Errorf("%w: krb5.conf has none for realm %s that can be used: %q", ErrNoKDC, realm, k.conf.realms[realm])
		}
		return list[:min(len(list), mostKDCs)], nil
	}
	if !k.conf.lookupKDC {
		return nil, fmt.Errorf("%w: krb5.conf has none for realm %s, and dns_lookup_kdc is off", ErrNoKDC, realm)
	}
	ctx, cancel := context.WithTimeout(ctx, kdcTimeout)
	defer cancel()
	_, records, err := net.DefaultResolver.LookupSRV(ctx, "kerberos", "tcp", realm)
	if err != nil {
		return nil, fmt.Errorf("%w: krb5.conf has none for realm %s, and DNS says: %w; add the realm to krb5.conf", ErrNoKDC, realm, err)
	}
	for _, r := range records {
		list = append(list, net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port))))
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: neither krb5.conf nor DNS has one for realm %s", ErrNoKDC, realm)
	}
	return list[:min(len(list), mostKDCs)], nil
}

// kdcAddress understands a kdc of krb5.conf: HOST, HOST:PORT, [ADDRESS]:PORT, with tcp/ or udp/ before it. HTTPS proxies are not.
func kdcAddress(s string) (string, bool) {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "tcp/"), "udp/")
	if s == "" || strings.Contains(s, "/") {
		return "", false
	}
	if host, port, err := net.SplitHostPort(s); err == nil && port != "" {
		return net.JoinHostPort(host, port), true
	}
	return net.JoinHostPort(strings.Trim(s, "[]"), "88"), true
}

// ask sends a request to one KDC.
func ask(ctx context.Context, network, address string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, kdcTimeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, shorter(err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer, err := converse(c, network, request)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return answer, shorter(err)
}

func converse(c net.Conn, network string, request []byte) ([]byte, error) {
	if network == "udp" {
		if _, err := c.Write(request); err != nil {
			return nil, err
		}
		answer := make([]byte, 1<<16)
		n, err := c.Read(answer)
		return answer[:n], err
	}
	if _, err := c.Write(slices.Concat(binary.BigEndian.AppendUint32(nil, uint32(len(request))), request)); err != nil {
		return nil, err
	}
	var length [4]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > longestReply {
		return nil, fmt.Errorf("%w: an answer of %d bytes", ErrProtocol, n)
	}
	answer := make([]byte, n)
	_, err := io.ReadFull(c, answer)
	return answer, err
}

// shorter takes off what the net package says about addresses, which the caller says too.
func shorter(err error) error {
	if inner, ok := err.(*net.OpError); ok {
		return inner.Err
	}
	return err
}
