// Package keep has scopes that are kept.
package keep

import (
	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

var global *guise.Scope

type server struct {
	scope *guise.Scope
	inner struct{ scopes []*guise.Scope }
}

func longer(t *token.Token, sv *server, ch chan *guise.Scope, m map[int]*guise.Scope) error {
	var outer *guise.Scope
	err := guise.RunAs(t, func(s *guise.Scope) error {
		global = s                                        // want `^the \*guise\.Scope s is assigned to global, which lasts longer than the scope: once the scope's function has returned Go panics and Command fails; use it in the function that it was given to$`
		outer = s                                         // want `assigned to outer`
		sv.scope = s                                      // want `assigned to sv\.scope`
		sv.inner.scopes = append(sv.inner.scopes, nil, s) // want `assigned to sv\.inner\.scopes`
		*sv = server{scope: s}                            // want `assigned to \*sv`
		m[0] = s                                          // want `assigned to m\[0\]`
		ch <- s                                           // want `^the \*guise\.Scope s is sent on a channel`
		return nil
	})
	outer.Go(nil)
	return err
}

func capturedByAGoStatement(t *token.Token) error {
	return guise.RunAs(t, func(s *guise.Scope) error {
		go func() { // want `a go statement in a scope`
			s.Go(nil) // want `^the \*guise\.Scope s is captured by a go statement, whose goroutine is not in the scope`
			s.Go(nil)
		}()
		go func() { // has one of its own
			_ = guise.RunAs(t, func(s *guise.Scope) error { s.Go(nil); return nil })
		}()
		return nil
	})
}

func asLongAsTheScope(t *token.Token, sv *server) error {
	return guise.RunAs(t, func(s *guise.Scope) error {
		mine := server{}
		mine.scope = s
		var inner *guise.Scope
		inner = s
		here := make(chan *guise.Scope, 1)
		here <- s
		_ = guise.RunAs(t, func(*guise.Scope) error {
			inner = s // the outer scope lasts
			return nil
		})
		_ = inner
		sv.scope = s
		defer func() { sv.scope = nil }()
		return nil
	})
}

func anInnerScopeEndsFirst(t *token.Token) error {
	return guise.RunAs(t, func(s *guise.Scope) error {
		kept := s
		err := guise.RunAs(t, func(s *guise.Scope) error {
			kept = s // want `assigned to kept`
			return nil
		})
		_ = kept
		return err
	})
}

func (sv *server) handle(s *guise.Scope) error {
	sv.inner.scopes = []*guise.Scope{s} // want `assigned to sv\.inner\.scopes`
	return nil
}

func (sv *server) serve(c *guise.Conn) error { return c.RunAsClient(sv.handle) }

// attach may be a method of something that is made in the scope.
func (sv *server) attach(s *guise.Scope) { sv.inner.scopes = []*guise.Scope{s} }
