package smb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/cloudsoda/go-smb2"
	"golang.org/x/sys/unix"
)

const (
	port = "445"

	// A network that is silently dead is noticed after deadAfter and a probe more.
	deadAfter  = 20 * time.Second
	probeIdle  = 10 * time.Second
	probeEvery = 5 * time.Second

	// mostCredits is how many requests a server may let be outstanding. There are two at a time.
	mostCredits = 8
)

// session is a pipe that is open on another machine, and what is under it. It has one pipe.
type session struct {
	wire  *wire
	file  *smb2.File
	ended context.Context // ends it
	end   context.CancelFunc
}

func isRefused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

// connect makes the TCP connection. It is the process's, in a scope too.
func (d *Dialer) connect(ctx context.Context, t target) (*net.TCPConn, error) {
	address := d.Address
	if address == "" {
		address = net.JoinHostPort(t.host, port)
	}
	dialer := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: probeIdle, Interval: probeEvery, Count: int(deadAfter / probeEvery)},
	}
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, connectError(address, err)
	}
	tcp := c.(*net.TCPConn)
	raw, err := tcp.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
		})
		err = errors.Join(err, set)
	}
	if err != nil {
		tcp.Close()
		return nil, fmt.Errorf("setting the timeout of the connection: %w", err)
	}
	return tcp, nil
}

// initiator is who calls, for go-smb2.
type initiator struct {
	smb2.Initiator
	kerberos *krb5Initiator // nil for a password
	account  string
}

// open logs on and opens the pipe. The end of ctx ends it; once it has returned ctx means nothing to the session.
func (d *Dialer) open(ctx context.Context, t target, who initiator) (s *session, err error) {
	tcp, err := d.connect(ctx, t)
	if err != nil {
		return nil, err
	}
	s = &session{wire: &wire{Conn: tcp, encrypt: d.RequireEncryption}}
	s.ended, s.end = context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, s.cut)
	doing := "negotiating with"
	defer func() {
		if v := recover(); v != nil { // go-smb2, about what a server says
			err = fmt.Errorf("%w: what it says can't be read: %v", ErrProtocol, v)
		}
		if !stop() {
			if s.file == nil && s.wire.greeted.Load() && !s.wire.settled.Load() {
				doing = "logging on to"
			}
			err = fmt.Errorf("%s %s: no answer: %w", doing, tcp.RemoteAddr(), ctx.Err())
			if ctx.Err() == context.DeadlineExceeded {
				err = fmt.Errorf("%w: %w", ErrUnreachable, err)
			}
		}
		if err != nil {
			s.cut()
			s = nil
		}
	}()

	dialer := smb2.Dialer{
		MaxCreditBalance: mostCredits,
		Negotiator:       smb2.Negotiator{RequireMessageSigning: true, SpecifiedDialect: dialect311},
		Initiator:        who,
	}
	logon, err := dialer.DialConn(s.ended, s.wire, t.host)
	if err != nil {
		return s, s.logonError(t, who, err)
	}
	s.wire.established()
	doing = "opening the pipe on"
	share, err := logon.WithContext(s.ended).Mount(t.share())
	if err != nil {
		return s, s.failed(openError(t, err))
	}
	s.file, err = share.WithContext(s.ended).OpenFile(t.pipe, os.O_RDWR, 0o600)
	if err != nil {
		return s, s.failed(openError(t, err))
	}
	// go-smb2's finalizer would wait for the server, and with it all others in the process.
	runtime.SetFinalizer(s.file, nil)
	return s, nil
}

// logonError says why there is no session.
func (s *session) logonError(t target, who initiator, err error) error {
	if who.kerberos != nil && who.kerberos.err != nil {
		return who.kerberos.err
	}
	if wrong := s.wire.wrong(); wrong != nil {
		return fmt.Errorf("%s: %w", t.host, wrong)
	}
	code, asked := s.wire.logonStatus()
	if !asked || code == statusSuccess || code == statusMoreProcessing {
		return s.failed(err)
	}
	reason, known := logonStatuses[code]
	switch {
	case code == statusTimeDifference:
		return fmt.Errorf("%w: %s says so (%v); set the clocks by NTP", ErrClock, t.host, code)
	case code == statusNoLogonServers:
		return fmt.Errorf("%w: %s can't reach its domain controllers, or its winbind does not run (%v)", ErrLogon, t.host, code)
	case code == statusRequestNotAccepted:
		return openError(t, smb2.ErrRequestNotAccepted)
	case code == statusLogonFailure && who.kerberos != nil:
		return fmt.Errorf("%w: %s does not take the ticket of %s for %s (%v); does its keytab have that principal's current key, does it have the account (on a domain member: do winbind and libnss-winbind know it?), and is the ticket newer than both?", ErrPrincipal, t.host, who.account, who.kerberos.ticket.server, code)
	case known:
		return fmt.Errorf("%w: %s on %s: %s (%v)", ErrLogon, who.account, t.host, reason, code)
	}
	return fmt.Errorf("%w: %s on %s: %v", ErrLogon, who.account, t.host, code)
}

// failed says more about an error of go-smb2's where it is about the connection.
func (s *session) failed(err error) error {
	if wrong := s.wire.wrong(); wrong != nil {
		return wrong
	}
	if cause := networkError(err); cause != nil {
		if !s.wire.received.Load() {
			return fmt.Errorf("%w: %s: %w; is this an SMB server?", ErrUnreachable, s.wire.RemoteAddr(), early(cause))
		}
		return fmt.Errorf("%w: %s: %w", ErrCut, s.wire.RemoteAddr(), early(cause))
	}
	var invalid *smb2.InvalidResponseError
	var internal *smb2.InternalError
	switch {
	case errors.As(err, &invalid):
		return fmt.Errorf("%w: %s", ErrProtocol, invalid.Message)
	case errors.As(err, &internal):
		return fmt.Errorf("%w: %s", ErrProtocol, internal.Message)
	}
	return err
}

// early is an error for an end where something was to come. An end of file would be taken for the pipe's.
func early(err error) error {
	err = shorter(err)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errEnded
	}
	return err
}

var errEnded = errors.New("the server ended the connection")

// cut ends the session at once. There is nothing else to end it with: a WRITE has been answered before, the end of the connection is
// that of the pipe and of the session, and go-smb2's Close of a file gets in the way of a READ of it that is under way.
func (s *session) cut() {
	s.end()
	s.wire.Conn.Close()
}
