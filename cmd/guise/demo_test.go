package main

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/testdir"
)

func TestDemoIsAsClaimedAndLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("acting as others takes root")
	}
	for _, players := range casts(false, false) {
		t.Run(players.title, func(t *testing.T) {
			dir := demoDirectory(t)
			var out strings.Builder
			err := rootDemo(&out, nil, []cast{players})
			if err != nil {
				t.Errorf("the demonstration ended with %v:\n%s", err, &out)
			}
			for _, text := range []string{"static tracking, stated by the clients", "dynamic tracking, stated by the clients",
				"dynamic tracking, said by the listeners", "NT's pipe file system takes it at the open",
				"A becomes A2(61002)    B  A2(61002)'s      A2's           A's, B's, C's    as claimed, ", "41 were as claimed, 0 were not"} {
				if !strings.Contains(out.String(), text) {
					t.Errorf("the demonstration does not say %q:\n%s", text, &out)
				}
			}
			expectEmpty(t, dir)
		})
	}
}

// liars are goroutines that do things otherwise than told.
func liars(do func(actor.Actor, actor.Order) (actor.Answer, error)) []cast {
	return []cast{{"liars", func(ids actor.IDs, caps ...uintptr) (actor.Actor, error) {
		a, err := actor.Goroutine(ids, caps...)
		return &liar{a, do}, err
	}}}
}

type liar struct {
	actor.Actor
	do func(actor.Actor, actor.Order) (actor.Answer, error)
}

func (l *liar) Do(o actor.Order) (actor.Answer, error) { return l.do(l.Actor, o) }

// expectNotAsClaimed returns what the demonstration says, and what it says of the live half.
func expectNotAsClaimed(t *testing.T, of string, casts []cast) (all, live string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("acting as others takes root")
	}
	dir := demoDirectory(t)
	var out strings.Builder
	if err := rootDemo(&out, nil, casts); !errors.Is(err, errNotAsClaimed) {
		t.Errorf("the demonstration of %s ended with %v, want %v:\n%s", of, err, errNotAsClaimed, &out)
	}
	expectEmpty(t, dir)
	_, live, _ = strings.Cut(out.String(), "LIVE:")
	return out.String(), live
}

func TestDemoFailsWhenServerActsAsItself(t *testing.T) {
	_, live := expectNotAsClaimed(t, "servers that don't impersonate", liars(func(a actor.Actor, o actor.Order) (actor.Answer, error) {
		switch o.Act {
		case actor.Enter, actor.Leave, actor.Watch:
			return actor.Answer{}, nil
		case actor.Watched:
			return actor.Answer{At: 1}, nil // "the change has come"
		case actor.Token:
			return actor.Answer{Context: personA.ids}, nil
		}
		return a.Do(o)
	}))
	if got := strings.Count(live, "NOT AS CLAIMED"); got != 20 {
		t.Errorf("of servers that act as themselves %d claims of the live half are not as claimed, want all 20:\n%s", got, live)
	}
}

// TestDemoFailsWhenServerFollowsAtItsNextEntryOnly has servers that act as their client is when they enter, and stay so.
func TestDemoFailsWhenServerFollowsAtItsNextEntryOnly(t *testing.T) {
	all, live := expectNotAsClaimed(t, "servers that don't follow in a scope", liars(func(a actor.Actor, o actor.Order) (actor.Answer, error) {
		switch o.Act {
		case actor.Enter:
			answer, err := a.Do(actor.Order{Act: actor.Client, Conn: o.Conn})
			if err != nil {
				return answer, err
			}
			return a.Do(actor.Order{Act: actor.RunAs, IDs: answer.Context})
		case actor.Watch:
			o.Patience = 10 * time.Millisecond
		}
		return a.Do(o)
	}))
	// Of each version with dynamic tracking: A becomes A2 twice, B and C do not, and C's token has no way.
	if got := strings.Count(live, "NOT AS CLAIMED"); got != 10 || !strings.Contains(all, "31 were as claimed, 10 were not") {
		t.Errorf("of servers that follow at the next entry %d claims of the live half are not as claimed, and others perhaps; want these 10:\n%s", got, all)
	}
	if !strings.Contains(live, "NOT AS CLAIMED, had not come after 5s") {
		t.Errorf("the demonstration does not say that the change did not come:\n%s", live)
	}
}

func TestDemoSaysWhereScopesCannotFollow(t *testing.T) {
	var out strings.Builder
	claims := &claims{out: &out}
	err := live(claims, nil, casts(true, true), errors.New("the reason"))
	if err != nil || claims.all != 0 || !strings.Contains(out.String(), "can't be shown here") || !strings.Contains(out.String(), "the reason") {
		t.Errorf("where scopes can't follow the demonstration ends with %v, claims %d things and says:\n%s", err, claims.all, &out)
	}
}

func TestDemoEndsWhenInterrupted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("acting as others takes root")
	}
	dir := demoDirectory(t)
	interrupted := make(chan os.Signal, 1)
	interrupted <- os.Interrupt
	if err := rootDemo(io.Discard, interrupted, casts(false, true)); !errors.Is(err, errInterrupted) {
		t.Errorf("an interrupted demonstration ended with %v, want %v", err, errInterrupted)
	}
	expectEmpty(t, dir)
}

// TestDemoEndsWhenInterruptedInAScope has B and C in scopes when the interrupt comes, and A gone at last.
func TestDemoEndsWhenInterruptedInAScope(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("acting as others takes root")
	}
	dir := demoDirectory(t)
	for _, players := range casts(true, true) {
		for after := 1; after < len(whileTheyAct); after++ {
			interrupted := make(chan os.Signal, 1)
			scenes := slices.Insert(slices.Clone(whileTheyAct), after, func(*timeline) { interrupted <- os.Interrupt })
			err := play(&claims{out: io.Discard}, interrupted, players, version{guise.Dynamic, true}, scenes)
			if !errors.Is(err, errInterrupted) {
				t.Errorf("%s, interrupted after scene %d: the play ended with %v, want %v", players.title, after, err, errInterrupted)
			}
			expectEmpty(t, dir)
		}
	}
}

func TestDemoWithoutRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("this is for an ordinary user")
	}
	var out strings.Builder
	if err := userDemo(&out); err != nil {
		t.Errorf("the demonstration ended with %v:\n%s", err, &out)
	}
	if !strings.Contains(out.String(), "run this as root") {
		t.Errorf("the demonstration does not say what to run for the rest:\n%s", &out)
	}
}

// demoDirectory makes the demonstration use a temporary directory of its own, which all ids can reach.
func demoDirectory(t *testing.T) string {
	t.Helper()
	dir := testdir.Open(t, 0o755)
	t.Setenv("TMPDIR", dir)
	return dir
}

func expectEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		t.Errorf("the demonstration left %s behind", f.Name())
	}
}
