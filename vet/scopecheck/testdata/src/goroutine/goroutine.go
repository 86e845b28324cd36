// Package goroutine has what runs on other goroutines.
package goroutine

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisehttp"
	"github.com/guise-project/guise/token"
)

func work() error { return nil }

func goStatements(t *token.Token, c *guise.Conn) {
	go work()
	_ = guise.RunAs(t, func(*guise.Scope) error {
		go work()      // want `^a go statement in a scope: the new goroutine runs as the server; use Scope\.Go$`
		defer func() { // what is called at once is in the scope
			go work() // want `a go statement in a scope`
		}()
		go func() { // want `a go statement in a scope`
			go work() // as the server, as it was already
		}()
		return nil
	})
	_ = c.RunAsClient(func(*guise.Scope) error {
		go work() // want `a go statement in a scope`
		return nil
	})
}

func theSameHoldsInScopeGo(t *token.Token) error {
	return guise.RunAs(t, func(s *guise.Scope) error {
		s.Go(func() error {
			go work() // want `a go statement in a scope`
			return nil
		})
		s.Go(work)
		return nil
	})
}

func aGoroutineMayEnterAScope(t *token.Token) {
	go func() {
		_ = guise.RunAs(t, func(*guise.Scope) error {
			go work() // want `a go statement in a scope`
			return nil
		})
		go work()
	}()
}

func argumentsOfAGoStatementAreEvaluatedHere(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		go takes(func() int { // want `a go statement in a scope`
			go work() // want `a go statement in a scope`
			return 0
		}())
		return nil
	})
}

func takes(int) {}

func literalsThatAreCalled(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		start := func() {
			go work() // want `a go statement in a scope`
		}
		start()
		_ = func() { go work() } // is not called
		slices.SortFunc([]int{1}, func(a, b int) int {
			go work() // want `a go statement in a scope`
			return 0
		})
		var once sync.Once
		once.Do(func() {
			go work() // want `a go statement in a scope`
		})
		return nil
	})
}

func othersThatStartThem(ctx context.Context, t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		time.AfterFunc(0, func() {})            // want `^time\.AfterFunc in a scope: what it is given runs on another goroutine, as the server; use Scope\.Go, or do it here$`
		defer context.AfterFunc(ctx, func() {}) // want `context\.AfterFunc in a scope`
		var g errgroup.Group
		g.Go(work)        // want `errgroup\.Group\.Go in a scope`
		_ = g.TryGo(work) // want `errgroup\.Group\.TryGo in a scope`
		var wg sync.WaitGroup
		wg.Go(func() { _ = work() })   // want `sync\.WaitGroup\.Go in a scope`
		runtime.SetFinalizer(&wg, nil) // want `runtime\.SetFinalizer in a scope`
		var one singleflight.Group
		_, _, _ = one.Do("", func() (any, error) { return nil, nil }) // want `singleflight\.Group\.Do in a scope: it may wait for what another caller runs`
		return nil
	})
}

func whatStartsNone(ctx context.Context, t *token.Token) error {
	time.AfterFunc(0, func() {})
	return guise.RunAs(t, func(s *guise.Scope) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		<-time.After(0)
		var p sync.Pool
		p.Put(p.Get())
		if c, err := guise.Dial("spool", nil); err == nil { // whatever it starts is as it should be
			_ = c.Close()
		}
		s.Go(work)
		return ctx.Err()
	})
}

func aGoroutineThatEntersAScopeOfItsOwn(t *token.Token, c *guise.Conn) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		done := make(chan error)
		go func() { done <- c.RunAsClient(func(*guise.Scope) error { return nil }) }()
		go enters(t)
		inAVariable := func() { enters(t); _ = c.RunAsClient(func(*guise.Scope) error { return nil }) }
		go inAVariable()
		go func() { _ = guisehttp.RunAsClient(nil, func(*guise.Scope) error { return nil }) }()
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.RunAsClient(func(*guise.Scope) error { return nil }) })
		var g errgroup.Group
		g.Go(func() error { return guise.RunAs(t, func(*guise.Scope) error { return nil }) })
		var one singleflight.Group
		_, _, _ = one.Do("", func() (any, error) { return nil, guise.RunAs(t, nil) }) // want `singleflight\.Group\.Do in a scope`
		g.Go(func() error { return work() })                                          // want `errgroup\.Group\.Go in a scope`
		return <-done
	})
}

func testsAndServers(t *token.Token, tt *testing.T, h http.Handler) {
	_ = guise.RunAs(t, func(*guise.Scope) error {
		tt.Run("", func(*testing.T) { _ = work() })                         // want `^testing\.T\.Run in a scope: what it is given runs on another goroutine, as the server; enter a scope in the test that it runs$`
		tt.Run("", func(*testing.T) { enters(t); _ = guise.RunAs(t, nil) }) // the test enters one of its own
		httptest.NewServer(h)                                               // want `^httptest\.NewServer in a scope: it serves on goroutines of its own`
		http.TimeoutHandler(h, time.Second, "").ServeHTTP(nil, nil)         // want `^http\.TimeoutHandler in a scope: the handler runs on another goroutine, as the server; enter the scope in the handler$`
		tt.Log()
		return nil
	})
}

func enters(t *token.Token) { _ = guise.RunAs(t, func(*guise.Scope) error { return nil }) }
