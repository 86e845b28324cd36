package guise

import (
	"fmt"

	"github.com/guise-project/guise/thread"
)

// CanFollow returns nil if scopes of this process can follow their clients while they last, and otherwise why they follow only at the
// next entry. nobody is as in [ListenConfig]. It takes signal 34, and wears nobody for a moment, on a thread of its own.
func CanFollow(nobody uint32) error {
	t, err := thread.Nobody(nobody)
	if err != nil {
		return err
	}
	return thread.CanFollow(t)
}

// prepareFollowing finds out at the start whether scopes can follow.
func (l *Listener) prepareFollowing() error {
	var err error
	if l.nobody, err = thread.Nobody(l.config.Nobody); err != nil {
		return fmt.Errorf("ListenConfig.Nobody: %w", err)
	}
	if err := thread.CanFollow(l.nobody); err != nil {
		l.config.Logger.Info("scopes follow their clients at the next entry only; see ListenConfig.Nobody if it is about that", "pipe", l.pipe, "error", err)
		return nil
	}
	l.scopesFollow = true
	return nil
}
