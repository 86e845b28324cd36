package smb

import (
	"fmt"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// inForce is the quality of service of every pipe between machines: SMB carries no other to a server behind smbd.
var inForce = guise.QoS{Level: guise.Impersonation, Tracking: guise.Static}

// checkQuality returns an error if what is asked for, or what the scope's token allows, can't be had between machines. What can't travel
// is refused, because the server would take it for more.
func checkQuality(asked *guise.QoS, worn *token.Token) error {
	if asked != nil {
		if asked.Level > guise.Delegation || asked.Tracking > guise.Dynamic {
			return fmt.Errorf("no such quality of service: %v, %v", asked.Level, asked.Tracking)
		}
		switch asked.Level {
		case guise.LevelUnstated, guise.Impersonation:
		case guise.Delegation:
			return fmt.Errorf("%w: Delegation is refused between machines, as no credentials are handed on; ask for Impersonation", guise.ErrLevel)
		default:
			return fmt.Errorf("%w: %v does not travel to another machine, where the server would take it for Impersonation; ask for Impersonation, or don't call", guise.ErrLevel, asked.Level)
		}
		if asked.EffectiveOnly {
			return fmt.Errorf("%w: EffectiveOnly does not travel to another machine", guise.ErrLevel)
		}
	}
	if worn != nil {
		if level := worn.Level(); level < guise.Impersonation {
			return fmt.Errorf("%w: this scope's client allows %v, which does not travel to another machine, where the server would take it for Impersonation", guise.ErrLevel, level)
		}
		if worn.EffectiveOnly() {
			return fmt.Errorf("%w: this scope's client allows only enabled capabilities (EffectiveOnly), which does not travel to another machine", guise.ErrLevel)
		}
	}
	return nil
}
