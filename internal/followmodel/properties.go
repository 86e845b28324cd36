package followmodel

import "fmt"

// Property is what the protocol promises.
type Property uint

// The properties.
const (
	// Whole: no operation runs with parts of different contexts.
	Whole Property = iota + 1
	// Own: an operation in a scope runs as what the scope's connection had as current since the scope was entered, or as the
	// fixed token; never as another scope's, and never as something older than what it was already.
	Own
	// Latest: an operation runs as the connection's current context, unless a change of it is still being made, or its signal
	// is on the way.
	Latest
	// Home: outside of all scopes a thread has the server's context, whatever signals come.
	Home
	// Records: no record is used after it was freed, none is freed twice, and in the end all are.
	Records
	// Bounded: at any time no more signals are pending for a slot on a thread than one for the record in it, and one for each
	// record which the thread took out itself, in Leave or unpark, before its signal came. If system calls do not return as
	// long as a signal is pending, that is one on a thread for all its slots together.
	Bounded
	// Ends: everybody gets to the end.
	Ends
	// Meant: the handler gives a thread only records of the scope which that thread wears, and not while the thread itself is
	// changing its credentials.
	Meant
	// Slots: in the end all slots are in the pool.
	Slots

	properties
)

var propertyNames = [properties]string{"", "Whole", "Own", "Latest", "Home", "Records", "Bounded", "Ends", "Meant", "Slots"}

func (p Property) String() string { return fmt.Sprintf("P%d %s", uint(p), propertyNames[p]) }

// violations are those of one step.
type violations []violation

type violation struct {
	property Property
	text     string
}

func (v *violations) add(p Property, format string, args ...any) {
	*v = append(*v, violation{p, fmt.Sprintf(format, args...)})
}

// checkOperation is what must be true when a thread does something in scope w.
func (m *model) checkOperation(s *state, t, w int, broken *violations) {
	info, sc := m.scopes[w], &s.scopes[w]
	wears := s.threads[t].wears
	for _, part := range wears {
		if part != wears[0] {
			broken.add(Whole, "an operation in %s has %s", info.name, wears)
			break
		}
	}
	for p, part := range wears {
		if sc.allowed&(1<<part) == 0 {
			broken.add(Own, "an operation in %s has %s of context %d", info.name, partNames[p], part)
			break
		}
	}
	if !info.followed() || s.threads[t].pending[sc.slot] > 0 {
		return
	}
	for a := range s.actors {
		if in := m.at(s, a); in != nil && in.changing == info.connection {
			return
		}
	}
	current := s.connections[info.connection].current
	if wears != (credentials{current, current, current, current}) {
		broken.add(Latest, "an operation in %s has %s, and the context is %d, with nothing on the way", info.name, wears, current)
	}
}

// checkMeant is what must be true when the handler on thread t applies a record.
func (m *model) checkMeant(s *state, t int, r record, broken *violations) {
	w := r.scope()
	in := m.at(s, t)
	switch {
	case m.scopes[w].thread != t:
		broken.add(Meant, "thread %d is given record %s, which is for thread %d", t, m.recordName(r), m.scopes[w].thread)
	case in == nil || in.wears != w:
		broken.add(Meant, "thread %d is given record %s while it does not wear %s, or is changing", t, m.recordName(r), m.scopes[w].name)
	}
	m.checkOrder(s, r, broken)
}

// checkOrder is what must be true when a record is applied, by whomever.
func (m *model) checkOrder(s *state, r record, broken *violations) {
	sc := &s.scopes[r.scope()]
	if r < sc.applied {
		broken.add(Own, "record %s is applied after a later one", m.recordName(r))
	}
	sc.applied = r
}

// checkMoment is what must be true always.
func (m *model) checkMoment(s *state, broken *violations) {
	for t := range m.Threads {
		th := &s.threads[t]
		if in := m.at(s, t); (in == nil || in.home) && th.wears != (credentials{}) {
			broken.add(Home, "thread %d wears nothing and has %s", t, th.wears)
		}
		total := uint8(0)
		for n := range m.Scenario.Slots {
			limit := th.excused[n]
			if s.slots[n].wants != 0 && s.slots[n].tid == uint8(t+1) {
				limit++
			}
			if th.pending[n] > limit {
				broken.add(Bounded, "%d signals for slot %d are pending on thread %d", th.pending[n], n, t)
			}
			total += th.pending[n]
		}
		if m.Prompt && total > 1 {
			broken.add(Bounded, "%d signals are pending on thread %d", total, t)
		}
	}
}

// checkEnd is what must be true when nothing can go on.
func (m *model) checkEnd(s *state, broken *violations) {
	for a := range s.actors {
		if in := m.at(s, a); in != nil {
			broken.add(Ends, "%s waits forever", m.actorName(a))
		}
	}
	if len(*broken) > 0 {
		return
	}
	for n := range m.Scenario.Slots {
		if s.slots[n].used {
			broken.add(Slots, "slot %d is not in the pool", n)
		}
	}
	for w := range m.scopes {
		for n, b := range s.scopes[w].records {
			if b.stage == live || b.stage == done {
				broken.add(Records, "record %s is never freed", m.recordName(recordOf(w, n)))
			}
		}
	}
}
