package actor

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/smb"
)

func init() {
	maps.Copy(kinds, map[string]error{
		"no delegation":      guise.ErrNoDelegation,
		"no ticket":          smb.ErrNoTicket,
		"ticket expired":     smb.ErrTicketExpired,
		"clock":              smb.ErrClock,
		"principal":          smb.ErrPrincipal,
		"no KDC":             smb.ErrNoKDC,
		"unreachable":        smb.ErrUnreachable,
		"logon":              smb.ErrLogon,
		"not the client's":   smb.ErrNotClients,
		"access":             smb.ErrAccess,
		"protocol":           smb.ErrProtocol,
		"encryption":         smb.ErrEncryption,
		"cut":                smb.ErrCut,
		"deadline of a call": context.DeadlineExceeded,
	})
}

// dialWithin is how long opening a pipe of another machine may take if the order does not say.
const dialWithin = time.Minute

// dial opens a pipe, of this machine or of another.
func dial(o Order) (*guise.Conn, error) {
	if !strings.HasPrefix(o.Pipe, `\\`) || strings.HasPrefix(o.Pipe, `\\.\`) {
		return guise.Dial(o.Pipe, o.QoS)
	}
	patience := o.Patience
	if patience == 0 {
		patience = dialWithin
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d := smb.Dialer{QoS: o.QoS, Message: o.Message, RequireEncryption: o.Encrypt}
	if o.Password != nil {
		d.Password = &smb.Password{User: o.Password.Account, Secret: o.Password.Secret}
	}
	return d.Dial(ctx, o.Pipe)
}
