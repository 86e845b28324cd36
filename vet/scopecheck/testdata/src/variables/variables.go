// Package variables has functions that are called by other names than their own.
package variables

import (
	"context"
	"iter"
	"net"
	"os/exec"
	"regexp"
	"runtime/pprof"
	"sync"
	"syscall"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"

	"scopes.example/src/elsewhere"
)

func work() {}

// Tests set such variables.
var (
	command = exec.Command
	look    = net.LookupHost
	write   = new(elsewhere.Log).Write
	again   = command
)

func ofOtherPackages(t *token.Token) error {
	before := command("true")
	either := exec.Command
	if before.Err != nil {
		either = fromElsewhere
	}
	unknown := either("true")
	return guise.RunAs(t, func(*guise.Scope) error {
		_ = command("true").Run() // want `^exec\.Command in a scope: the program's real uid`
		_ = again("true").Run()   // want `^exec\.Command in a scope`
		_, _ = look("localhost")  // want `^net\.LookupHost in a scope`
		write()                   // want `^elsewhere\.Log\.Write in a scope comes to a go statement`
		each := elsewhere.Each
		each(1, func(int) {
			go work() // want `^a go statement in a scope`
		})
		_ = unknown.Run()
		return before.Run() // want `^exec\.Cmd\.Run in a scope`
	})
}

func fromElsewhere(string, ...string) *exec.Cmd { return nil }

func severalAtOnce(t *token.Token) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		elsewhere.Each(pair())
		return elsewhere.As(whose())
	})
}

func pair() (int, func(int))              { return 1, nil }
func whose() (*token.Token, func() error) { return nil, nil }

func thatAreGiven(t *token.Token) error {
	build, later := elsewhere.Build, func() { write() }
	return guise.RunAs(t, func(s *guise.Scope) error {
		start := s.Go
		start(func() error {
			go work() // want `^a go statement in a scope`
			return nil
		})
		s.Go(build)              // want `^elsewhere\.Build in a scope comes to exec\.Command`
		new(sync.Once).Do(write) // want `^elsewhere\.Log\.Write in a scope comes to a go statement`
		later()                  // want `^a function literal in a scope comes to a go statement \(elsewhere\.go:\d+, by way of elsewhere\.Log\.Write\)`
		return nil
	})
}

// Variables of each other end.
func circle(t *token.Token, swap bool) error {
	a, b := work, work
	if swap {
		a, b = b, a
	}
	return guise.RunAs(t, func(*guise.Scope) error { a(); b(); return nil })
}

type job func() error

func makes(name string) func() error {
	return func() error {
		_ = func() int { return len(name) }
		go work() // want `^a go statement in a scope`
		return nil
	}
}

func makesNamed() (fn func()) {
	fn = func() { go work() }
	return fn
}

func choose(first bool) func() {
	_ = func() func() { return func() { go work() } } // which choose does not return
	if first {
		return func() {}
	}
	return work2
}

func work2() { go work() }

func two() (func(), error) { return work2, nil }

var once = sync.OnceValue(func() int { go work(); return 1 })

func thatAreReturned(t *token.Token) error {
	return guise.RunAs(t, func(s *guise.Scope) error {
		s.Go(makes("a"))
		s.Go(job(func() error {
			go work() // want `^a go statement in a scope`
			return nil
		}))
		makesNamed()() // want `^a function literal in a scope comes to a go statement`
		fn := choose(true)
		fn()                   // want `^work2 in a scope comes to a go statement`
		_ = once()             // want `^a function literal in a scope comes to a go statement`
		sync.OnceFunc(work2)() // want `^work2 in a scope comes to a go statement`
		_ = makesNamed()       // is not called
		_, _ = two()
		return nil
	})
}

func numbers(yield func(int) bool) {
	go work()
	yield(1)
}

func all() iter.Seq[int] { return numbers }

func ranges(t *token.Token, list []func()) error {
	for range numbers {
	}
	return guise.RunAs(t, func(*guise.Scope) error {
		for range numbers { // want `^numbers in a scope comes to a go statement`
		}
		for range all() { // want `^numbers in a scope comes to a go statement`
		}
		for _, fn := range list { // of which nothing is known
			fn()
		}
		next, stop := iter.Pull(numbers) // want `^numbers in a scope comes to a go statement`
		defer stop()
		next()
		return nil
	})
}

func thatOthersCall(t *token.Token, c syscall.RawConn, r *regexp.Regexp) error {
	return guise.RunAs(t, func(*guise.Scope) error {
		_ = r.ReplaceAllStringFunc("", func(string) string {
			go work() // want `^a go statement in a scope`
			return ""
		})
		pprof.Do(context.Background(), pprof.Labels(), func(context.Context) {
			go work() // want `^a go statement in a scope`
		})
		return c.Control(func(uintptr) {
			go work() // want `^a go statement in a scope`
		})
	})
}
