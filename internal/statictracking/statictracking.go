// Package statictracking has what adapters for protocols that read ahead share: their clients state static tracking.
package statictracking

import (
	"context"

	"github.com/guise-project/guise"
)

// Dialer opens pipes.
type Dialer interface {
	Dial(ctx context.Context, name string) (*guise.Conn, error)
}

// Stated returns d with static tracking stated, so that the listener's own preference does not count; nil is a [guise.Dialer] that states
// nothing else, and what is no guise.Dialer stays as it is. It is not ok if d asks for dynamic tracking.
func Stated(d Dialer) (_ Dialer, ok bool) {
	var stated guise.Dialer
	switch d := d.(type) {
	case nil:
	case *guise.Dialer:
		if d != nil {
			stated = *d
		}
	default:
		return d, true
	}
	var qos guise.QoS
	if stated.QoS != nil {
		qos = *stated.QoS
	}
	if qos.Tracking == guise.Dynamic {
		return nil, false
	}
	qos.Tracking = guise.Static
	stated.QoS = &qos
	return &stated, true
}
