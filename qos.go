package guise

import (
	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/token"
)

// Level is NT's impersonation level: how far a server may go with its client's identity.
type Level = token.Level

// The impersonation levels, lowest first. LevelUnstated leaves it to the default, Impersonation.
const (
	LevelUnstated  = token.LevelUnstated
	Anonymous      = token.Anonymous
	Identification = token.Identification
	Impersonation  = token.Impersonation
	Delegation     = token.Delegation
)

// Tracking is NT's security context tracking: whether a server keeps the client's context as it was at the open, or follows
// it.
type Tracking = announce.Tracking

// The kinds of tracking. TrackingUnstated leaves it to the listener, whose own default is Static.
const (
	TrackingUnstated = announce.TrackingUnstated
	Static           = announce.Static
	Dynamic          = announce.Dynamic
)

// QoS is a security quality of service (NT: SECURITY_QUALITY_OF_SERVICE): what a client states when it opens a pipe. Zero
// fields are unstated, and so is all of a nil *QoS.
type QoS struct {
	Level         Level
	Tracking      Tracking
	EffectiveOnly bool // only enabled capabilities count
}

// inForce returns q with what it leaves unstated filled in.
func (q QoS) inForce(tracking Tracking) QoS {
	if q.Level == LevelUnstated {
		q.Level = Impersonation
	}
	if q.Tracking == TrackingUnstated {
		q.Tracking = tracking
	}
	if q.Tracking == TrackingUnstated {
		q.Tracking = Static
	}
	return q
}
