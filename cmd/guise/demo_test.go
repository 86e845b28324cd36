package main

import (
	"errors"
	"github.com/guise-project/guise/internal/testdir"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/guise-project/guise/internal/actor"
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
				"dynamic tracking, said by the listeners", "NT's pipe file system takes it at the open", "21 were as claimed, 0 were not"} {
				if !strings.Contains(out.String(), text) {
					t.Errorf("the demonstration does not say %q:\n%s", text, &out)
				}
			}
			expectEmpty(t, dir)
		})
	}
}

// unimpressed is an actor that only says that it impersonates.
type unimpressed struct{ actor.Actor }

func (u unimpressed) Do(o actor.Order) (actor.Answer, error) {
	if o.Act == actor.Enter || o.Act == actor.Leave {
		return actor.Answer{}, nil
	}
	return u.Actor.Do(o)
}

func TestDemoFailsWhenServerActsAsItself(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("acting as others takes root")
	}
	dir := demoDirectory(t)
	liars := cast{"servers that do not impersonate", func(ids actor.IDs, caps ...uintptr) (actor.Actor, error) {
		a, err := actor.Goroutine(ids, caps...)
		return unimpressed{a}, err
	}}
	if err := rootDemo(io.Discard, nil, []cast{liars}); !errors.Is(err, errNotAsClaimed) {
		t.Errorf("the demonstration of servers that don't impersonate ended with %v, want %v", err, errNotAsClaimed)
	}
	expectEmpty(t, dir)
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
