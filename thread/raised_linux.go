//go:build !386 && !arm

package thread

import (
	"fmt"

	"github.com/guise-project/guise/token"
)

// Raised calls f with the capabilities of the process in effect, for something that the library itself has to do in a scope. It is
// for the thread that wears w, between [Worn.Hold] and [Worn.Release]. If the process can't act as others, f is not called and the error wraps
// [ErrPrivilege]. If the capabilities can't be taken off again the process ends.
func (w *Worn) Raised(f func() error) error {
	caps, err := readCapabilities(0)
	if err != nil {
		return err
	}
	if !holdsSwitching(caps.Permitted) {
		return ErrPrivilege
	}
	raised := caps
	raised.Effective = raised.Permitted
	if err := setCapabilities(raised); err != nil {
		return err
	}
	defer func() {
		if err := setCapabilities(caps); err != nil {
			stop(fmt.Sprintf("thread %d has the server's capabilities in a scope, and they can't be taken off: %v", w.tid, err))
		}
	}()
	return f()
}

// ServerCapabilities returns the capabilities that the thread had before it wore anything: the most that any token has in a scope.
func (w *Worn) ServerCapabilities() token.Capabilities {
	caps := w.base.was.caps
	return token.Capabilities{Permitted: caps.Permitted, Effective: caps.Effective}
}
