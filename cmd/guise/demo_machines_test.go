package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/crossing"
	"github.com/guise-project/guise/internal/machines"
	"github.com/guise-project/guise/internal/machinestest"
)

func TestMachinesDemoIsAsClaimedAndLeavesNothing(t *testing.T) {
	machinestest.Need(t)
	dir := demoDirectory(t)
	var out strings.Builder
	if err := machinesDemo(&out, nil, crossing.Rows, startMachines); err != nil {
		t.Errorf("the demonstration ended with %v:\n%s", err, &out)
	}
	for _, text := range []string{
		"A on 1, B on 1, C on 1; B asks C for dynamic tracking\nExpected: C follows A",
		"B asked C for dynamic tracking, and gets static",
		"machine3 has heard nothing meanwhile\n          connections that its kernel took: 0; who logged on or tried to, by smbd's log: nobody   as claimed",
		"C on machine3 acts as B(berta)\n          its new file belongs to B(berta); of the private files it could open B's, not A's, A2's, C's, D's   as claimed",
		" were as claimed, 0 were not.",
	} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("the demonstration does not say %q:\n%s", text, &out)
		}
	}
	expectEmpty(t, dir)
}

// startWith makes machines whose actors are made by another than theirs.
func startWith(start func(actor.Actor) actor.Actor) func(context.Context) (*crossing.Stage, error) {
	return func(ctx context.Context) (*crossing.Stage, error) {
		stage, err := startMachines(ctx)
		if err != nil {
			return nil, err
		}
		stage.Start = func(ctx context.Context, m *machines.Machine, ids actor.IDs, capabilities ...uintptr) (actor.Actor, error) {
			a, err := actor.OnMachine(ctx, m, ids, capabilities...)
			if err != nil {
				return nil, err
			}
			return start(a), nil
		}
		return stage, nil
	}
}

func TestMachinesDemoFailsWhenServersActAsThemselves(t *testing.T) {
	machinestest.Need(t)
	dir := demoDirectory(t)
	var out strings.Builder
	err := machinesDemo(&out, nil, crossing.Rows[:1], startWith(func(a actor.Actor) actor.Actor {
		return &liar{a, func(a actor.Actor, o actor.Order) (actor.Answer, error) {
			switch o.Act {
			case actor.Enter, actor.Leave, actor.Watch:
				return actor.Answer{}, nil
			case actor.Watched:
				return actor.Answer{At: 1}, nil
			}
			return a.Do(o)
		}}
	}))
	if err == nil || !strings.Contains(out.String(), "NOT AS CLAIMED") {
		t.Errorf("of servers that don't impersonate the demonstration ended with %v:\n%s", err, &out)
	}
	expectEmpty(t, dir)
}

// TestMachinesDemoEndsWhenInterrupted has the interrupt come before anything is made, and in the middle of things.
func TestMachinesDemoEndsWhenInterrupted(t *testing.T) {
	machinestest.Need(t)
	for _, after := range []int{0, 1, 12, 30} {
		dir := demoDirectory(t)
		interrupted := make(chan os.Signal, 1)
		if after == 0 {
			interrupted <- os.Interrupt
		}
		orders := 0
		err := machinesDemo(io.Discard, interrupted, crossing.Rows[:2], startWith(func(a actor.Actor) actor.Actor {
			return &liar{a, func(a actor.Actor, o actor.Order) (actor.Answer, error) {
				if orders++; orders == after {
					interrupted <- os.Interrupt
				}
				return a.Do(o)
			}}
		}))
		if !errors.Is(err, errInterrupted) {
			t.Errorf("interrupted at order %d the demonstration ended with %v, want %v", after, err, errInterrupted)
		}
		expectEmpty(t, dir)
	}
}

func TestMachinesDemoGoesWithNoOtherCast(t *testing.T) {
	for _, other := range []string{"--threads", "--processes"} {
		command := newRootCommand()
		command.SetArgs([]string{"demo", "--machines", other})
		var wrong *usageError
		if err := command.Execute(); !errors.As(err, &wrong) {
			t.Errorf("demo --machines %s ended with %v, want an error of usage", other, err)
		}
	}
}

func TestMachinesDemoTakesRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("this is for an ordinary user")
	}
	command := newRootCommand()
	command.SetArgs([]string{"demo", "--machines"})
	if err := command.Execute(); err == nil || !strings.Contains(err.Error(), "run this as root") {
		t.Errorf("demo --machines without root ended with %v", err)
	}
}
