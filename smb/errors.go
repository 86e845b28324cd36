package smb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/cloudsoda/go-smb2"

	"github.com/guise-project/guise"
)

// The errors that programs ask for with [errors.Is]. They come wrapped in a [guise.OpError]; what is not here is guise's own:
// [guise.ErrNoDelegation], [guise.ErrLevel], [guise.ErrNoPipe], [guise.ErrNobodyListens], [guise.ErrBusy], [guise.ErrBadName].
var (
	// ErrNoTicket: there is no credential cache, no ticket in it, or one that can't be used.
	ErrNoTicket = errors.New("no Kerberos ticket")
	// ErrTicketExpired: the ticket has expired.
	ErrTicketExpired = errors.New("the Kerberos ticket has expired")
	// ErrClock: the clocks of this machine and of the KDC or the server are too far apart.
	ErrClock = errors.New("the clock of this machine or of the other one is off")
	// ErrPrincipal: the KDC does not know the server's principal, or the server does not take tickets for it.
	ErrPrincipal = errors.New("wrong principal for the server")
	// ErrNoKDC: no KDC is known or can be reached.
	ErrNoKDC = errors.New("no KDC can be reached")
	// ErrConfig: krb5.conf can't be used.
	ErrConfig = errors.New("the Kerberos configuration can't be used")
	// ErrUnreachable: the machine can't be reached, or nothing there speaks SMB.
	ErrUnreachable = errors.New("the machine can't be reached")
	// ErrLogon: the server or the KDC does not let the account in: a wrong password, or an account that is unknown, locked or
	// has expired.
	ErrLogon = errors.New("the account is not let in")
	// ErrNotClients: the password given is not for the account of this scope's client.
	ErrNotClients = errors.New("the password is not for the account of this scope's client")
	// ErrAccess: the account is let in, but not to this pipe.
	ErrAccess = errors.New("access to the pipe is denied")
	// ErrProtocol: the server does not do what it should.
	ErrProtocol = errors.New("the server breaks the protocol")
	// ErrEncryption: encryption is required and can't be had.
	ErrEncryption = errors.New("the connection can't be encrypted")
	// ErrCut: the connection broke. What was written last may not have arrived.
	ErrCut = errors.New("the connection to the other machine broke")
)

// status is an NTSTATUS.
type status uint32

const (
	statusSuccess             status = 0
	statusMoreProcessing      status = 0xc0000016
	statusEndOfFile           status = 0xc0000011
	statusAccessDenied        status = 0xc0000022
	statusObjectNameNotFound  status = 0xc0000034
	statusInstanceUnavailable status = 0xc00000ab
	statusPipeNotAvailable    status = 0xc00000ac
	statusPipeBusy            status = 0xc00000ae
	statusPipeDisconnected    status = 0xc00000b0
	statusPipeClosing         status = 0xc00000b1
	statusPipeBroken          status = 0xc000014b
	statusBadNetworkName      status = 0xc00000cc
	statusRequestNotAccepted  status = 0xc00000d0
	statusConnectionRefused   status = 0xc0000236
	statusConnectionDisc      status = 0xc000020c
	statusConnectionReset     status = 0xc000020d
	statusBufferOverflow      status = 0x80000005
	statusLogonFailure        status = 0xc000006d
	statusNoLogonServers      status = 0xc000005e
	statusTimeDifference      status = 0xc0000133
)

// logonStatuses are the reasons for not letting an account in.
var logonStatuses = map[status]string{
	0xc0000064:         "there is no such account",
	0xc000006a:         "the password is wrong",
	statusLogonFailure: "there is no such account or the password is wrong",
	0xc000006e:         "the account is restricted",
	0xc000006f:         "the account can't be used at this time of day",
	0xc0000070:         "the account can't be used from this machine",
	0xc0000071:         "the password has expired",
	0xc0000072:         "the account is disabled",
	0xc000015b:         "the account may not log on over the network",
	0xc0000193:         "the account has expired",
	0xc0000224:         "the password must be changed first",
	0xc0000234:         "the account is locked",
	statusAccessDenied: "access is denied",
}

func (s status) String() string { return fmt.Sprintf("NTSTATUS %#x", uint32(s)) }

// statusOf returns the status in an error of go-smb2's, which has errors of package os in the place of some, and whether there is one.
func statusOf(err error) (status, bool) {
	var response *smb2.ResponseError
	switch {
	case errors.As(err, &response):
		return status(response.Code), true
	case errors.Is(err, smb2.ErrRequestNotAccepted):
		return statusRequestNotAccepted, true
	case errors.Is(err, os.ErrNotExist):
		return statusObjectNameNotFound, true
	case errors.Is(err, os.ErrPermission):
		return statusAccessDenied, true
	}
	return 0, false
}

// networkError returns the error of the network in one of go-smb2's, which does not unwrap, and nil if there is none.
func networkError(err error) error {
	var transport *smb2.TransportError
	if errors.As(err, &transport) {
		return transport.Err
	}
	return nil
}

// connectError says why no connection to the machine was made.
func connectError(address string, err error) error {
	var inner *net.OpError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.DeadlineExceeded // there is no other deadline
	}
	what := "connecting to"
	var dns *net.DNSError
	if errors.As(err, &dns) {
		what = "looking up"
		if dns.IsNotFound {
			return fmt.Errorf("%w: there is no such machine: %w; check the name, and how this machine resolves names", ErrUnreachable, err)
		}
	}
	hint := "is the machine up, and does its firewall let port 445 in?"
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s %s: %w", what, address, err)
	case isRefused(err):
		hint = "is smbd running there, and on this port?"
	}
	return fmt.Errorf("%w: %s %s: %w; %s", ErrUnreachable, what, address, err, hint)
}

// openError says why a pipe could not be opened on a machine that let the account in.
func openError(t target, err error) error {
	code, ok := statusOf(err)
	if !ok {
		return err
	}
	switch code {
	case statusObjectNameNotFound:
		return fmt.Errorf("%w: %s has none called %s; is its server running, and does it serve the network?", guise.ErrNoPipe, t.host, t.pipe)
	case statusConnectionRefused, statusPipeNotAvailable:
		return fmt.Errorf("%w (%s on %s: %v); start it again", guise.ErrNobodyListens, t.pipe, t.host, code)
	case statusPipeBusy, statusInstanceUnavailable, statusRequestNotAccepted:
		return fmt.Errorf("%w (%s: %v)", guise.ErrBusy, t.host, code)
	case statusAccessDenied, statusBadNetworkName:
		return fmt.Errorf("%w: %s does not let this account open %s (%v)", ErrAccess, t.host, t.pipe, code)
	case statusPipeDisconnected, statusPipeBroken, statusPipeClosing, statusConnectionDisc, statusConnectionReset:
		return fmt.Errorf("%w: the server of %s on %s ended the connection at once; perhaps it does not let this client in (%v)", ErrAccess, t.pipe, t.host, code)
	}
	return fmt.Errorf("opening %s on %s: the server says %v", t.pipe, t.host, code)
}
