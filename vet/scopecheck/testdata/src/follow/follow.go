// Package follow has functions that are called in scopes, by name.
package follow

import (
	"io/fs"
	"path/filepath"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"

	"scopes.example/src/elsewhere"
)

func work() {}

func named(c *guise.Conn) error { return c.RunAsClient(handle) }

func handle(*guise.Scope) error {
	go work() // want `^a go statement in a scope`
	return nil
}

// It is in a scope whoever calls it, by an interface or by a method value.
type handler struct{}

func (handler) Handle(s *guise.Scope) error {
	go work() // want `^a go statement in a scope`
	return nil
}

func given(t *token.Token) error {
	return guise.RunAs(t, func(s *guise.Scope) error {
		s.Go(job)
		s.Go(elsewhere.Build) // want `^elsewhere\.Build in a scope comes to exec\.Command \(deeper\.go:6, by way of deeper\.Run\): the program's real uid`
		return nil
	})
}

func job() error {
	go work() // want `^a go statement in a scope`
	return nil
}

func called(t *token.Token, h handler) error {
	return guise.RunAs(t, func(s *guise.Scope) error {
		a()              // want `^a in a scope comes to a go statement \(follow\.go:\d+, by way of b\): the new goroutine runs as the server; use Scope\.Go$`
		new(thing).run() // want `^thing\.run in a scope comes to a go statement`
		generic(1)       // want `^generic in a scope comes to a go statement`
		captured()       // want `^a function literal in a scope comes to a go statement`
		fine()
		_ = a // only named
		return h.Handle(s)
	})
}

var captured = func() { go work() }

// Functions that call each other, too.
func a() { b() }
func b() {
	if false {
		a()
	}
	go work()
}

type thing struct{}

func (*thing) run() { go work() }

func generic[T any](T) { go work() }

func fine() { go2() }
func go2()  {}

// runner is not followed: which method it is nobody knows.
type runner interface{ run() }

func notFollowed(t *token.Token, r runner, fn func()) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		r.run()
		fn()
		run := new(thing).run
		_ = run
		return nil
	})
}

func elsewhereToo(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		new(elsewhere.Log).Write() // want `^elsewhere\.Log\.Write in a scope comes to a go statement \(elsewhere\.go:15\)`
		elsewhere.Harmless()
		helper() // want `^helper in a scope comes to exec\.Command \(deeper\.go:6, by way of elsewhere\.Build, deeper\.Run\)`
		elsewhere.Each(1, func(int) {
			go work() // want `^a go statement in a scope`
		})
		elsewhere.Later(func() { go work() }) // want `^elsewhere\.Later in a scope comes to a go statement`
		return elsewhere.OnItsOwn(t)
	})
}

func helper() { _ = elsewhere.Build() }

// Functions that enter a scope with what they are given.
func as(t *token.Token, fn func()) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		fn()
		return nil
	})
}

func passesOn(t *token.Token, fn func()) error { return as(t, fn) }

func wrapped(t *token.Token) {
	_ = as(t, func() {
		go work() // want `^a go statement in a scope`
	})
	_ = passesOn(t, func() {
		time.AfterFunc(0, work) // want `^time\.AfterFunc in a scope`
	})
	_ = elsewhere.As(t, func() error {
		go work() // want `^a go statement in a scope`
		return nil
	})
}

// What calls its parameter is right with one function and wrong with another.
func each(fn func()) { fn() }

func contextMatters(t *token.Token) error {
	each(func() { go work() })
	return guise.RunAs(t, func(*guise.Scope) error {
		each(func() {})
		each(func() {
			go work() // want `^a go statement in a scope`
		})
		return filepath.WalkDir("/", func(string, fs.DirEntry, error) error {
			go work() // want `^a go statement in a scope`
			return nil
		})
	})
}
