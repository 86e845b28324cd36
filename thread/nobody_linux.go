package thread

import (
	"errors"
	"fmt"

	"github.com/guise-project/guise/token"
)

// NobodyID is the uid and gid of a scope whose client's context is lost: of no account, and not one of those that the kernel reports
// where it has none.
const NobodyID = 4294967293

// Nobody returns the token of a scope whose client's context is lost, of uid and gid id, 0 for [NobodyID].
func Nobody(id uint32) (*token.Token, error) {
	if id == 0 {
		id = NobodyID
	}
	t, err := token.FromIDs(id, id, nil)
	if err != nil {
		return nil, err
	}
	return t, t.Wearable()
}

// CanFollow returns nil if worn tokens of this process can be changed while other code runs, to nobody's too, which it wears for a
// moment on a thread of its own.
func CanFollow(nobody *token.Token) error {
	if err := Following(); err != nil {
		return err
	}
	tried := make(chan error)
	go func() {
		var w Worn
		err := w.Enter(nobody)
		if err == nil {
			err = w.Leave()
		}
		tried <- err
	}()
	// A server that can't be anybody else has nothing to lose in a scope either.
	if err := <-tried; err != nil && !errors.Is(err, ErrPrivilege) {
		return fmt.Errorf("uid and gid %d, for scopes whose client's context is lost, can't be had here: %w", nobody.UID(), err)
	}
	return nil
}
