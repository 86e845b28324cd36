package followmodel

// Report is what was found in a scenario.
type Report struct {
	States, Ends int
	Pending      int // the most signals that were pending at once on one thread for one slot
	Depth        int // the longest way without detours
	// happened has which steps were done at all: without skipping anything, and skipping.
	happened [ops][2]bool
	handled  [marks + 1][2]bool // and of the handler: ending with it, and going on
	// Broken has a shortest trace for each property that does not hold.
	Broken map[Property]Trace
}

// Check tries everything that can happen in a scenario, with some guards taken out. A violation is noted, and what comes of it
// is tried as well.
func Check(sc Scenario, without ...Guard) *Report {
	m := newModel(sc, without)
	x := &search{model: m, seen: map[state]struct{}{}, report: &Report{Broken: map[Property]Trace{}}}
	x.run()
	return x.report
}

// move is what happens next.
type move struct {
	kind  kind
	actor uint8
	n     uint8 // the slot of a delivery, the way of a step
}

type kind uint8

const (
	begins kind = iota
	steps
	delivers
	handles
)

// search is breadth first, so that what it finds is found on a shortest way.
type search struct {
	*model
	seen   map[state]struct{}
	passed []way // to each state seen
	next   []found
	report *Report
}

// way says how a state was reached, for traces: only the moves are kept.
type way struct {
	from int32
	move move
}

type found struct {
	state state
	way   int32
}

func (x *search) run() {
	x.add(x.start(), none, move{}, nil)
	for len(x.next) > 0 {
		level := x.next
		x.next = nil
		x.report.Depth++
		for i := range level {
			x.expand(&level[i])
		}
	}
}

func (x *search) expand(f *found) {
	s := &f.state
	var broken violations
	moved := false
	for mv := range x.moves(s) {
		moved = true
		next := *s
		broken = broken[:0]
		x.move(&next, mv, &broken)
		x.cover(s, &next, mv)
		x.add(next, f.way, mv, broken)
	}
	if !moved {
		x.report.Ends++
		broken = broken[:0]
		x.checkEnd(s, &broken)
		x.note(f.way, broken)
	}
}

// moves has all that can happen in a state.
func (x *search) moves(s *state) func(func(move) bool) {
	return func(yield func(move) bool) {
		for a := range s.actors {
			if a < maxThreads {
				if s.threads[a].handler.pc != idle {
					if !yield(move{handles, uint8(a), 0}) {
						return
					}
					continue
				}
				for n, p := range s.threads[a].pending {
					if p > 0 && !yield(move{delivers, uint8(a), uint8(n)}) {
						return
					}
				}
			}
			for n := range x.ways(s, a) {
				if !yield(move{steps, uint8(a), uint8(n)}) {
					return
				}
			}
		}
	}
}

// move makes one.
func (m *model) move(s *state, mv move, broken *violations) {
	switch mv.kind {
	case steps:
		m.step(s, int(mv.actor), int(mv.n), broken)
	case delivers:
		m.deliver(s, int(mv.actor), int(mv.n))
	case handles:
		m.handle(s, int(mv.actor), broken)
	}
}

func (x *search) add(s state, from int32, mv move, broken violations) {
	_, seen := x.seen[s]
	if seen && len(broken) == 0 {
		return
	}
	me := int32(len(x.passed))
	x.passed = append(x.passed, way{from, mv})
	if !seen {
		x.seen[s] = struct{}{}
		x.report.States++
		x.next = append(x.next, found{s, me})
		for t := range x.Threads {
			for _, p := range s.threads[t].pending {
				x.report.Pending = max(x.report.Pending, int(p))
			}
		}
		x.checkMoment(&s, &broken)
	}
	x.note(me, broken)
}

// cover notes that a move happened.
func (x *search) cover(before, after *state, mv move) {
	a := mv.actor
	switch mv.kind {
	case steps:
		skipped := 0
		if in := x.at(before, int(a)); in.other != 0 && after.actors[a].pc != before.actors[a].pc+1 {
			skipped = 1
		}
		x.report.happened[x.at(before, int(a)).op][skipped] = true
	case handles:
		on := 0
		if after.threads[a].handler.pc != idle {
			on = 1
		}
		x.report.handled[before.threads[a].handler.pc][on] = true
	}
}

func (x *search) note(to int32, broken violations) {
	for _, v := range broken {
		if _, ok := x.report.Broken[v.property]; !ok {
			x.report.Broken[v.property] = x.trace(to, v)
		}
	}
}
