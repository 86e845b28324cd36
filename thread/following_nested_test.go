//go:build amd64 || arm64

package thread_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

func TestOuterScopeIsChangedWhenTheInnerIsLeft(t *testing.T) {
	needFollowing(t)
	for _, s := range servers {
		for _, follow := range []bool{true, false} {
			t.Run(fmt.Sprint(s.name, ", the inner follows: ", follow), func(t *testing.T) {
				onThread(t, s, func() {
					before, server := status(t), capabilities(t).Effective
					outer := enter(t, person(t, 61001))
					change(t, outer, person(t, 61002))
					inner := &thread.Worn{Follow: follow}
					if err := inner.Enter(person(t, 61100)); err != nil {
						t.Errorf("Enter: %v", err)
						return
					}
					in := person(t, 61100)
					change(t, outer, person(t, 61003))
					isNow(t, "after the outer scope's change", in, server)
					if follow {
						in = person(t, 61101)
						change(t, inner, in)
						isNow(t, "after the inner scope's change", in, server)
					}
					change(t, outer, person(t, 61004))
					isNow(t, "after the outer scope's second change", in, server)
					if got := outer.Token(); !got.Equal(person(t, 61004)) {
						t.Errorf("the outer scope's token is %s", got)
					}
					leave(t, inner)
					isNow(t, "after leaving the inner scope", person(t, 61004), server)
					if thread.Current() != outer {
						t.Error("after leaving the inner scope Current is not the outer")
					}
					change(t, outer, person(t, 61005))
					isNow(t, "after a change that came later", person(t, 61005), server)
					leave(t, outer)
					if after := status(t); after != before {
						t.Errorf("leaving did not restore the thread. Before:\n%s\nafter:\n%s", before, after)
					}
				})
			})
		}
	}
}

func TestOuterScopeFollowsAfterAnInnerOneThatCannotBeEntered(t *testing.T) {
	needFollowing(t)
	onThread(t, servers[3], func() {
		server := capabilities(t).Effective
		w := enter(t, person(t, 61001))
		for uid := range uint32(3) {
			inner := &thread.Worn{Follow: true}
			if err := inner.Enter(mustToken(t, 0, 0)); !errors.Is(err, thread.ErrPrivilege) {
				t.Errorf("entering a scope of root gives %v", err)
			}
			if err := inner.Change(person(t, 61009)); !errors.Is(err, thread.ErrCannotFollow) {
				t.Errorf("changing a scope that was not entered gives %v", err)
			}
			change(t, w, person(t, 61002+uid))
			isNow(t, "after an inner scope that could not be entered", person(t, 61002+uid), server)
		}
		leave(t, w)
	})
}

// level is what a test knows of a scope.
type level struct {
	worn *thread.Worn
	is   *token.Token
}

// TestNestingAnyhow enters, leaves and changes scopes in any order, and compares the thread with what it must be.
func TestNestingAnyhow(t *testing.T) {
	needFollowing(t)
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			for seed := range uint64(30) {
				onThread(t, s, func() { nestAnyhow(t, seed) })
				if t.Failed() {
					return
				}
			}
		})
	}
}

func nestAnyhow(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	server := capabilities(t).Effective
	uid, _, _ := who()
	some := func() *token.Token {
		switch n := random.Uint32N(10); {
		case n == 0 && uid == 0:
			return rootWith(t, token.CapSet(random.Uint64()))
		case n < 3:
			return mustToken(t, 61001, 61000+random.Uint32N(2))
		default:
			return person(t, 61001+n)
		}
	}
	was := []string{status(t)}
	var levels []*level
	var history strings.Builder
	for range 50 {
		switch n := random.IntN(6); {
		case n == 0 && len(levels) < 5 || len(levels) == 0:
			l := &level{&thread.Worn{Follow: random.IntN(4) != 0}, some()}
			fmt.Fprintf(&history, "enter %s, follow %v\n", l.is, l.worn.Follow)
			if err := l.worn.Enter(l.is); err != nil {
				t.Errorf("Enter: %v, after\n%s", err, &history)
				return
			}
			levels = append(levels, l)
			was = append(was, "")
		case n == 1:
			fmt.Fprintf(&history, "leave\n")
			leave(t, levels[len(levels)-1].worn)
			levels = levels[:len(levels)-1]
		default:
			i := random.IntN(len(levels))
			l, to := levels[i], some()
			fmt.Fprintf(&history, "change level %d to %s\n", i, to)
			err := l.worn.Change(to)
			if l.worn.Follow {
				l.is = to
			}
			if l.worn.Follow != (err == nil) {
				t.Errorf("Change: %v, after\n%s", err, &history)
			}
		}
		if len(levels) > 0 {
			isNow(t, "now", levels[len(levels)-1].is, server)
			if levels[len(levels)-1].worn != thread.Current() {
				t.Error("Current is not the innermost scope")
			}
		} else if now := status(t); now != was[0] {
			t.Errorf("outside all scopes the thread is\n%s\nwant\n%s", now, was[0])
		}
		if t.Failed() {
			t.Logf("seed %d:\n%s", seed, &history)
			return
		}
	}
	for ; len(levels) > 0; levels = levels[:len(levels)-1] {
		leave(t, levels[len(levels)-1].worn)
	}
	if now := status(t); now != was[0] {
		t.Errorf("after leaving all scopes the thread is\n%s\nwant\n%s", now, was[0])
	}
}

// TestNestingWhileChangesRain has all scopes of some threads changed all the time while they enter and leave.
func TestNestingWhileChangesRain(t *testing.T) {
	needFollowing(t)
	// The first half of them come in the outer scope, the others in the inner.
	const each = 4
	o := newOffice(t, 2*each)
	outside := func() *token.Token { return o.persons[rand.IntN(each)] }
	inside := func() *token.Token { return o.persons[each+rand.IntN(each)] }
	rounds := 1000
	if raceEnabled {
		rounds = 300
	}
	var wait sync.WaitGroup
	for range 3 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			runtime.LockOSThread()
			before := status(t)
			outer := enter(t, outside())
			var inner atomic.Pointer[thread.Worn]
			var over atomic.Bool
			var changers sync.WaitGroup
			last := outside()
			changers.Add(2)
			go func() {
				defer changers.Done()
				for !over.Load() {
					change(t, outer, outside())
					runtime.Gosched()
				}
				change(t, outer, last)
			}()
			go func() {
				defer changers.Done()
				for !over.Load() {
					if w := inner.Load(); w != nil {
						if err := w.Change(inside()); err != nil && !errors.Is(err, thread.ErrCannotFollow) {
							t.Error(err)
						}
					}
					runtime.Gosched()
				}
			}()
			check := func(where string, first, last *token.Token) {
				uid, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
				if uint32(uid) < first.UID() || uint32(uid) > last.UID() {
					t.Errorf("%s the thread is uid %d", where, uid)
				}
				o.work(t, uint32(uid))
			}
			for i := range rounds {
				check("in the outer scope", o.persons[0], o.persons[each-1])
				w := enter(t, inside())
				inner.Store(w)
				for range 3 {
					check("in the inner scope", o.persons[each], o.persons[2*each-1])
					runtime.Gosched()
				}
				if i%2 == 0 { // changes that come too late do nothing either
					inner.Store(nil)
				}
				leave(t, w)
				if i == rounds-1 {
					over.Store(true)
				}
			}
			changers.Wait()
			arrive()
			isNow(t, "after the last change", last, token.AllCaps)
			leave(t, outer)
			if after := status(t); after != before {
				t.Errorf("leaving did not restore the thread. Before:\n%s\nafter:\n%s", before, after)
			}
		}()
	}
	wait.Wait()
}

// TestOuterScopesSignalComesInTheInner has the handler called for a scope that another one is worn inside.
func TestOuterScopesSignalComesInTheInner(t *testing.T) {
	needFollowing(t)
	for _, follow := range []bool{true, false} {
		t.Run(fmt.Sprint("the inner follows: ", follow), func(t *testing.T) {
			published(t, person(t, 61001), person(t, 61002), func(outer *thread.Worn) {
				inner := &thread.Worn{Follow: follow}
				if err := inner.Enter(person(t, 61003)); err != nil {
					t.Error(err)
					return
				}
				thread.Block(false)
				arrive()
				isNow(t, "after the outer scope's signal", person(t, 61003), token.AllCaps)
				leave(t, inner)
				isNow(t, "after leaving the inner scope", person(t, 61002), token.AllCaps)
			})
		})
	}
}

func TestHeldScopeIsChangedWhenItIsReleased(t *testing.T) {
	needFollowing(t)
	published(t, person(t, 61001), person(t, 61002), func(w *thread.Worn) {
		w.Hold()
		isNow(t, "held, with a change that had not come", person(t, 61002), token.AllCaps)
		thread.Block(false)
		change(t, w, person(t, 61003))
		arrive()
		isNow(t, "changed while it is held", person(t, 61002), token.AllCaps)
		w.Release()
		isNow(t, "released", person(t, 61003), token.AllCaps)
		change(t, w, person(t, 61004))
		isNow(t, "changed after it was released", person(t, 61004), token.AllCaps)
	})
}
