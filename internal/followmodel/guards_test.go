package followmodel

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

// What breaks with guards taken out: these properties, and no other. With -v -traces it shows a shortest way to each.
func TestBreaks(t *testing.T) {
	for _, b := range []struct {
		without []Guard
		in      Scenario
		broken  []Property
	}{
		{[]Guard{HandlerChecksThread}, twoThreads, []Property{Own, Latest, Home, Records, Bounded, Meant}},
		{[]Guard{HandlerChecksState}, nestedFixed, []Property{Whole, Own, Latest, Meant}},
		{[]Guard{HandlerExchanges}, oneScope, []Property{Whole, Own, Latest, Records}},
		{[]Guard{EnterParksOuter}, nestedFixed, []Property{Whole, Own, Latest, Meant}},
		{[]Guard{RegisterCompares}, oneScope, []Property{Own, Latest}},
		{[]Guard{UnparkLocks}, nestedFixed, []Property{Latest, Bounded}},
		{[]Guard{UnparkApplies}, nestedFixed, []Property{Latest}},
		{[]Guard{FailureUnparks}, nestedFailing, []Property{Latest}},
		{[]Guard{LeaveFreesSlot}, oneScope, []Property{Slots}},
		{[]Guard{ConnectionFirst}, oneScope, []Property{Ends}},
		{[]Guard{FreeOnlyDone}, oneScope, []Property{Whole, Own, Records}},
		{[]Guard{PublishFirst}, oneScope, []Property{Own, Latest, Bounded}},
		{[]Guard{OneSignal}, oneScope, []Property{Bounded}},
		{[]Guard{OneSignal}, prompt(oneScope), []Property{Bounded}},

		// Two updaters' contexts can come to a scope in another order than to the connection.
		{[]Guard{ChangesUnderLock}, twoUpdaters, []Property{Latest}},
		// A signal for the outer scope may be sent after one for the inner: two of a thread are pending then.
		{[]Guard{ParkLocks}, prompt(nestedSame), []Property{Bounded}},

		// These stand in for each other: see TestSpare.
		{[]Guard{EnterClearsSlot, LeaveTakesBack}, again, []Property{Own, Latest, Records, Meant}},
		{[]Guard{LeaveMarksBusy, LeaveTakesBack}, oneScope, []Property{Home, Records, Meant}},
		{[]Guard{UnregisterFirst, LeaveLocks}, twoThreads, []Property{Own, Latest, Records, Bounded}},
		{[]Guard{UnregisterFirst, ChangeChecksLeft}, twoThreads, []Property{Own, Latest, Records, Bounded, Meant}},
		{[]Guard{ChangesUnderLock, LeaveLocks}, twoThreads, []Property{Own, Latest, Records, Bounded, Meant}},
		{[]Guard{ChangesUnderLock, ChangeChecksLeft}, twoThreads, []Property{Own, Latest, Records, Bounded, Meant}},

		// What is taken for granted. A dropped signal is one of another slot's that the thread wears, or has worn.
		{[]Guard{SignalsQueue}, nestedSame, []Property{Own, Latest}},
		{[]Guard{SignalsQueue}, otherSlot, []Property{Own, Latest}},
		{[]Guard{SignalsSent}, oneScope, []Property{Own, Latest}},
		{[]Guard{OwnSignalFirst}, oneScope, []Property{Own}},
	} {
		t.Run(fmt.Sprint(b.without, " ", b.in.Name), func(t *testing.T) {
			if r := Check(b.in); len(r.Broken) > 0 {
				t.Fatal("it is broken with all guards")
			}
			r := Check(b.in, b.without...)
			if got := slices.Sorted(maps.Keys(r.Broken)); !slices.Equal(got, b.broken) {
				t.Errorf("broken: %v, want %v", got, b.broken)
			}
			t.Logf("%d states, broken: %v", r.States, b.broken)
			for _, p := range b.broken {
				if *traces {
					t.Logf("\n%s", r.Broken[p])
				}
			}
		})
	}
}

// Guards that can be taken out alone, because others do the same. TestBreaks has the pairs of which one is needed. Of EnterMarksBusy,
// EnterLocks and RestoreFirst no pair was found.
func TestSpare(t *testing.T) {
	in := []Scenario{again, twoThreads, nestedFixed, prompt(nestedFixed)}
	if *large {
		in = slices.Concat(scenarios, unlessRace)
	}
	for _, spare := range []struct {
		without []Guard
		because string
	}{
		{[]Guard{ChangeChecksLeft}, "a scope is off the list before it is left, and who is on the list is changed with the list locked"},
		{[]Guard{LeaveLocks}, "the same"},
		{[]Guard{UnregisterFirst}, "Change finds left, set under the mutex"},
		{[]Guard{LeaveTakesBack}, "the slot is busy until Enter clears it"},
		{[]Guard{EnterClearsSlot}, "Leave took the record back, and nobody publishes in a scope that is left"},
		{[]Guard{LeaveMarksBusy}, "Leave took the record back: a late handler finds none"},
		{[]Guard{EnterMarksBusy}, "the slot was busy in the pool, and if not, a late handler finds no record: nobody publishes in it yet"},
		{[]Guard{EnterMarksBusy, LeaveMarksBusy}, "the same"},
		{[]Guard{EnterLocks}, "nobody changes a scope that is not registered"},
		{[]Guard{RestoreFirst}, "a late handler finds that the slot is another thread's, or nobody's"},
		{[]Guard{EnterLocks, RestoreFirst}, "both"},
	} {
		t.Run(fmt.Sprint(spare.without), func(t *testing.T) {
			for _, sc := range in {
				for _, trace := range Check(sc, spare.without...).Broken {
					t.Errorf("in %s, although %s:\n%s", sc.Name, spare.because, trace)
				}
			}
		})
	}
}

// With one updater it takes no lock for the changes to come in order. What a scope that is left needs then is in TestBreaks.
func TestOneUpdaterUnlocked(t *testing.T) {
	for _, sc := range []Scenario{oneScope, twoThreads} {
		for _, trace := range Check(sc, ChangesUnderLock).Broken {
			t.Errorf("in %s:\n%s", sc.Name, trace)
		}
	}
}

// Late signals are what real-time signals are needed for, and what makes more than one pend for a slot.
func TestPrompt(t *testing.T) {
	if r := Check(prompt(nestedSame), SignalsQueue); len(r.Broken) > 0 {
		t.Errorf("broken: %v", r.Broken)
	}
	if r := Check(prompt(otherSlot)); r.Pending != 1 {
		t.Errorf("%d signals were pending for a slot", r.Pending)
	}
	if r := Check(otherSlot); r.Pending != 3 {
		t.Errorf("%d late signals were pending for a slot", r.Pending)
	}
}

func TestNames(t *testing.T) {
	for g := range guards {
		if g.String() == "" {
			t.Errorf("guard %d has no name", g)
		}
	}
	for p := Whole; p < properties; p++ {
		if propertyNames[p] == "" {
			t.Errorf("property %d has no name", p)
		}
	}
}
