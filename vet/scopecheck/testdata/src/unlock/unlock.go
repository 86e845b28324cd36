// Package unlock has runtime.UnlockOSThread.
package unlock

import (
	"runtime"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"

	"scopes.example/src/elsewhere"
)

func somebodyElsesLock(t *token.Token) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return guise.RunAs(t, func(*guise.Scope) error {
		runtime.UnlockOSThread() // want `^runtime\.UnlockOSThread without a LockOSThread of one's own in a scope: the goroutine goes on elsewhere and another one gets the client's thread; guise ends the process if it finds out; never call it$`
		return nil
	})
}

func onesOwn(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		runtime.LockOSThread()
		defer func() { runtime.UnlockOSThread() }()
		locked()
		return nil
	})
}

func locked() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
}

func lockedByHelpers() {
	lock()
	defer unlock()
}

func lock()   { runtime.LockOSThread() }
func unlock() { runtime.UnlockOSThread() }

func byHelpers(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		lockedByHelpers()
		lock()
		defer unlock()
		return nil
	})
}

func byHelpersElsewhere(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		elsewhere.Lock()
		runtime.UnlockOSThread()
		runtime.LockOSThread()
		_ = elsewhere.Build() // want `^elsewhere\.Build in a scope`
		elsewhere.Unlock()
		elsewhere.Lock()
		defer elsewhere.Unlock()
		return nil
	})
}

func byAHelperElsewhereAlone(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		elsewhere.Locked()
		elsewhere.Unlock() // want `^elsewhere\.Unlock in a scope comes to runtime\.UnlockOSThread`
		return nil
	})
}

func aHelperThatUnlocksItself(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		locked()
		runtime.UnlockOSThread() // want `^runtime\.UnlockOSThread without a LockOSThread of one's own`
		return nil
	})
}

func byAHelperAlone(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		unlock() // want `unlock in a scope comes to runtime\.UnlockOSThread without a LockOSThread of one's own \(unlock\.go:\d+\)`
		return nil
	})
}
