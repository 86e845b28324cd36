// Package elsewhere has helpers for package follow.
package elsewhere

import (
	"runtime"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"

	"scopes.example/src/elsewhere/deeper"
)

type Log struct{}

func (*Log) Write() { go work() } // want Write:`in a scope: \[goroutine\]`

func work() {}

func Harmless() { work() }

func Build() error { return deeper.Run("make") } // want Build:`in a scope: \[program\]`

func Lock() { runtime.LockOSThread() } // want Lock:`in a scope: \[\], calls \[\], enters \[\], locks true`

func Unlock() { runtime.UnlockOSThread() } // want Unlock:`in a scope: \[unlock\]`

// Locked leaves nothing locked.
func Locked() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
}

func Each(n int, fn func(int)) { // want Each:`in a scope: \[\], calls \[1\], enters \[\]`
	for i := range n {
		fn(i)
	}
}

func Later(fn func()) { go fn() } // want Later:`in a scope: \[goroutine\], calls \[\], enters \[\]`

func As(t *token.Token, fn func() error) error { // want As:`in a scope: \[\], calls \[\], enters \[1\]`
	return guise.RunAs(t, func(*guise.Scope) error { return fn() })
}

// OnItsOwn enters a scope and leaves it.
func OnItsOwn(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error { return nil })
}
