// Package silence has comments that say that something is right.
package silence

import (
	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

func work() {}

func silent(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		go work() //guise:scope-ok it touches nothing of the client's
		go work() // want `a go statement in a scope`
		//guise:scope-ok it touches nothing of the client's
		go work()
		go work() // want `a go statement in a scope`
		//guise:scope-ok it touches nothing of the client's, which
		// takes more words
		go work()
		go work() // want `a go statement in a scope`
		logs()
		silenced() //guise:scope-ok see there
		callsSilenced()
		silenced() // want `silenced in a scope comes to a go statement \(silence\.go:\d+\)`
		return nil
	})
}

func logs() {
	//guise:scope-ok the server's own log
	go work()
}

func callsSilenced() {
	silenced() //guise:scope-ok for all who call this
}

func silenced() { go work() }

func withoutAReason(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		go work() /* want `a go statement in a scope` `^//guise:scope-ok takes a reason` */ //guise:scope-ok
		//guise:scope-okay is another word
		go work() // want `a go statement in a scope`
		return nil
	})
}
