package smb

import (
	"context"
	"fmt"
	"net"

	"github.com/guise-project/guise"
)

// Dialer opens pipes on other machines. The zero value states nothing and logs on with Kerberos.
type Dialer struct {
	// QoS is what the client asks for; nil asks for nothing. What SMB can't carry is refused: see the package comment.
	QoS *guise.QoS
	// Message says that the pipe is one of messages, which SMB does not tell a client.
	Message bool
	// Password, if not nil, is used in the place of Kerberos. In a scope it has to be for the account of the scope's client.
	Password *Password
	// Principal is the server's for Kerberos, as cifs/HOST or cifs/HOST@REALM. "" is cifs/ and the host of the pipe's name.
	Principal string
	// Address is the host and the port to connect to. "" is port 445 of the host of the pipe's name.
	Address string
	// RequireEncryption has everything after the logon encrypted. It is signed without, and encrypted too if the server wants that.
	RequireEncryption bool
}

// Dial opens a pipe on another machine, with Kerberos and a quality of service, which may be nil. See [Dialer.Dial].
func Dial(ctx context.Context, name string, qos *guise.QoS) (*guise.Conn, error) {
	return (&Dialer{QoS: qos}).Dial(ctx, name)
}

// Dial opens the pipe that is called \\HOST\pipe\NAME, or //HOST/pipe/NAME: as the scope's client if it is called in a scope, else as
// the process. The end of ctx ends it, whatever the client, the KDC or the server do; the connection does not depend on ctx.
func (d *Dialer) Dial(ctx context.Context, name string) (*guise.Conn, error) {
	c, err := d.dial(ctx, name)
	if err != nil {
		return nil, &guise.OpError{Op: "dial", Pipe: name, Err: err}
	}
	return c, nil
}

// DialContext is Dial as [net/http.Transport] and others want it. The network is not looked at. They may call it on a goroutine of their own:
// that one is in no scope, and dials as the process. In a scope dial first, and give them the connection.
func (d *Dialer) DialContext(ctx context.Context, _, name string) (net.Conn, error) {
	c, err := d.Dial(ctx, name)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (d *Dialer) dial(ctx context.Context, name string) (*guise.Conn, error) {
	t, err := parseName(name)
	if err != nil {
		return nil, err
	}
	who, err := d.caller()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type result struct {
		session *session
		err     error
	}
	done := make(chan result, 1)
	// Of its own, so that in a scope too the connection is made with the process's rights, whatever the net package does.
	go func() {
		s, err := d.openAs(ctx, t, who)
		done <- result{s, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, r.err
	}
	return d.carry(`\\`+t.host+`\pipe\`+t.pipe, r.session)
}

// caller returns who calls, if the call may be made at all. Nothing has been opened or sent before.
func (d *Dialer) caller() (caller, error) {
	worn, err := guise.Wearing()
	if err != nil {
		return caller{}, err
	}
	who := processCaller()
	if worn != nil {
		if origin, network := worn.Origin(); network {
			return caller{}, fmt.Errorf("%w: it is of %v", guise.ErrNoDelegation, origin)
		}
		who = scopeCaller(worn)
	}
	if err := checkQuality(d.QoS, worn); err != nil {
		return caller{}, err
	}
	if d.Password != nil {
		if err := d.Password.check(); err != nil {
			return caller{}, err
		}
	}
	return who, nil
}

func (d *Dialer) openAs(ctx context.Context, t target, who caller) (*session, error) {
	var i initiator
	if d.Password != nil {
		if err := d.Password.mayBeUsed(ctx, who); err != nil {
			return nil, err
		}
		i = initiator{Initiator: d.Password.initiator(t), account: d.Password.String()}
	} else {
		k, err := d.kerberos(ctx, t, who)
		if err != nil {
			return nil, err
		}
		i = initiator{Initiator: k, kerberos: k, account: k.ticket.client.String()}
	}
	return d.open(ctx, t, i)
}

// carry returns a connection whose data goes by the session.
func (d *Dialer) carry(name string, s *session) (*guise.Conn, error) {
	theirs, ours, watch, err := newSocketpair(d.Message)
	if err != nil {
		s.cut()
		return nil, err
	}
	p := &pump{session: s, pipe: s.file, end: ours, watch: watch, message: d.Message}
	c, err := guise.Carried(name, guise.Carriage{
		Socket:         theirs,
		QoS:            inForce,
		Message:        d.Message,
		LongestMessage: longestMessage,
		Local:          s.wire.LocalAddr(),
		Remote:         s.wire.RemoteAddr(),
		Why:            p.reason,
	})
	if err != nil {
		theirs.Close()
		ours.Close()
		watch.Close()
		s.cut()
		return nil, err
	}
	go p.run()
	return c, nil
}
