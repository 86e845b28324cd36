package followmodel

import (
	"flag"
	"slices"
	"testing"
)

var (
	large  = flag.Bool("large", false, "also try the scenarios that take minutes and gigabytes")
	traces = flag.Bool("traces", false, "show how what breaks without a guard comes to break (with -v)")
)

func client(c int, inner ...Scope) Scope    { return Scope{Connection: c, Inner: inner} }
func fixed(t Context, inner ...Scope) Scope { return Scope{Connection: Fixed, Token: t, Inner: inner} }
func failing(s Scope) Scope                 { s.Fails = true; return s }
func prompt(s Scenario) Scenario            { s.Prompt = true; s.Name += ", prompt signals"; return s }
func enters(s ...Scope) []Scope             { return s }
func makes(u ...Update) []Update            { return u }

// The contexts 1 to 4 are connection 0's, 5 to 8 connection 1's, 9 a fixed token's.
var (
	oneScope = Scenario{Name: "a scope", Connections: []Context{1}, Slots: 1,
		Threads:  [][]Scope{enters(client(0))},
		Updaters: [][]Update{makes(Update{0, 2}, Update{0, 3}, Update{0, Nobody})}}
	twoUpdaters = Scenario{Name: "a scope, two updaters, one back to what it was", Connections: []Context{1}, Slots: 1,
		Threads:  [][]Scope{enters(client(0))},
		Updaters: [][]Update{makes(Update{0, 2}, Update{0, 1}), makes(Update{0, Nobody})}}
	again = Scenario{Name: "a scope after the other", Connections: []Context{1}, Slots: 1,
		Threads:  [][]Scope{enters(client(0), client(0))},
		Updaters: [][]Update{makes(Update{0, 2}, Update{0, 3}), makes(Update{0, Nobody})}}
	otherSlot = Scenario{Name: "a scope after the other, two connections and slots", Connections: []Context{1, 5}, Slots: 2,
		Threads:  [][]Scope{enters(client(0), client(1), client(0))},
		Updaters: [][]Update{makes(Update{0, 2}, Update{0, 3}), makes(Update{1, 6})}}
	twoThreads = Scenario{Name: "two threads, one slot", Connections: []Context{1}, Slots: 1,
		Threads:  [][]Scope{enters(client(0)), enters(client(0))},
		Updaters: [][]Update{makes(Update{0, 2}, Update{0, 3})}}
	nested = Scenario{Name: "nested", Connections: []Context{1, 5}, Slots: 2,
		Threads:  [][]Scope{enters(client(0, client(1)))},
		Updaters: [][]Update{makes(Update{0, 2}, Update{0, 3}), makes(Update{1, 6}, Update{1, Nobody})}}
	nestedSame = Scenario{Name: "nested, of the same connection", Connections: []Context{1}, Slots: 2,
		Threads:  [][]Scope{enters(client(0, client(0)))},
		Updaters: [][]Update{makes(Update{0, 2}, Update{0, 3}), makes(Update{0, Nobody})}}
	nestedFixed = Scenario{Name: "a fixed token nested", Connections: []Context{1}, Slots: 1,
		Threads:  [][]Scope{enters(client(0, fixed(9)))},
		Updaters: [][]Update{makes(Update{0, 2}, Update{0, 3}), makes(Update{0, Nobody})}}
	nestedTwice = Scenario{Name: "nested, one after the other", Connections: []Context{1, 5}, Slots: 2,
		Threads:  [][]Scope{enters(client(0, client(1), client(1)))},
		Updaters: [][]Update{makes(Update{0, 2}, Update{0, 3}), makes(Update{1, 6})}}
	nestedFailing = Scenario{Name: "nested, and can't be entered", Connections: []Context{1, 5}, Slots: 2,
		Threads:  [][]Scope{enters(failing(client(1)), client(0, failing(client(1)), failing(fixed(9))))},
		Updaters: [][]Update{makes(Update{0, 2}, Update{0, 3}), makes(Update{1, 6})}}
	threeLevels = Scenario{Name: "three levels", Connections: []Context{1, 5}, Slots: 3,
		Threads:  [][]Scope{enters(client(0, client(1, client(0))))},
		Updaters: [][]Update{makes(Update{0, 2}), makes(Update{1, 6})}}
	fixedBetween = Scenario{Name: "three levels, a fixed token between", Connections: []Context{1, 5}, Slots: 2,
		Threads:  [][]Scope{enters(client(0, fixed(9, client(1))))},
		Updaters: [][]Update{makes(Update{0, 2}, Update{0, 3}), makes(Update{1, 6})}}
	inFixed = Scenario{Name: "two threads, one slot, one in a fixed token", Connections: []Context{1}, Slots: 1,
		Threads:  [][]Scope{enters(fixed(9, client(0))), enters(client(0))},
		Updaters: [][]Update{makes(Update{0, 2}, Update{0, 3})}}
	nestedThreads = Scenario{Name: "two threads, two slots, nested", Connections: []Context{1, 5}, Slots: 2,
		Threads:  [][]Scope{enters(client(0, client(1))), enters(client(0))},
		Updaters: [][]Update{makes(Update{0, 2}), makes(Update{1, 6})}}
	crosswise = Scenario{Name: "two threads, three slots, nested crosswise", Connections: []Context{1, 5}, Slots: 3,
		Threads:  [][]Scope{enters(client(0, client(1))), enters(client(1, client(0)))},
		Updaters: [][]Update{makes(Update{0, 2})}}
	nestedBoth = Scenario{Name: "two threads, three slots, nested", Connections: []Context{1, 5}, Slots: 3,
		Threads:  [][]Scope{enters(client(0, client(1))), enters(client(1))},
		Updaters: [][]Update{makes(Update{0, 2}), makes(Update{1, 6})}}
)

var (
	scenarios = []Scenario{
		oneScope, twoUpdaters, again, otherSlot, twoThreads, nestedFixed, nestedFailing, threeLevels, fixedBetween, inFixed,
		prompt(again), prompt(nestedFixed),
	}
	// The race detector finds nothing in a search that is one goroutine, and makes it five times as slow.
	unlessRace = []Scenario{nested, nestedSame, nestedTwice, nestedThreads, prompt(nested)}
	largest    = []Scenario{crosswise, nestedBoth}
)

// The protocol holds, and the scenarios are enough for every step of it to be done, and every way out to be taken.
func TestHolds(t *testing.T) {
	all := slices.Clone(scenarios)
	if !raceEnabled {
		all = append(all, unlessRace...)
	}
	if *large {
		all = append(all, largest...)
	}
	var happened [ops][2]bool
	var handled [marks + 1][2]bool
	for _, sc := range all {
		t.Run(sc.Name, func(t *testing.T) {
			r := Check(sc)
			t.Logf("%d states, %d ends, at most %d moves and %d pending signals", r.States, r.Ends, r.Depth, r.Pending)
			for _, trace := range r.Broken {
				t.Errorf("broken:\n%s", trace)
			}
			for i := range happened {
				for j := range happened[i] {
					happened[i][j] = happened[i][j] || r.happened[i][j]
				}
			}
			for i := range handled {
				for j := range handled[i] {
					handled[i][j] = handled[i][j] || r.handled[i][j]
				}
			}
		})
	}

	var want [ops][2]bool
	for i := range want {
		want[i][0] = true
	}
	want[skipOthers] = [2]bool{}   // is no step of its own
	want[skipIfWanted] = [2]bool{} // only without PublishFirst
	for _, o := range []op{register, takeWaiting, publish, skipIfBusy} {
		want[o] = [2]bool{true, true}
	}
	want[freeOld] = [2]bool{false, true}
	want[skipIfLeft] = [2]bool{true, false} // see TestSpare for why nobody finds a scope left
	for i := range happened {
		if happened[i] != want[i] {
			t.Errorf("step %d happened %t, and skipping %t", i, happened[i][0], happened[i][1])
		}
	}

	wantHandled := [marks + 1][2]bool{checksThread: {true, true}, checksState: {true, true}, takes: {true, true}, marks: {true, false}}
	for i := applies; i < marks; i++ {
		wantHandled[i] = [2]bool{false, true}
	}
	if handled != wantHandled {
		t.Errorf("the handler's steps ended it, or went on: %v, want %v", handled, wantHandled)
	}
}
