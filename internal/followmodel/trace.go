package followmodel

import (
	"fmt"
	"slices"
	"strings"
)

// Trace is how something comes to happen: one line for each step.
type Trace struct {
	Violation string
	Steps     []string
}

func (t Trace) String() string {
	return strings.Join(t.Steps, "\n") + "\n=> " + t.Violation
}

func (x *search) trace(to int32, v violation) Trace {
	var moves []move
	for ; to != none; to = x.passed[to].from {
		moves = append(moves, x.passed[to].move)
	}
	slices.Reverse(moves)
	trace := Trace{Violation: fmt.Sprintf("%s: %s", v.property, v.text)}
	s := x.start()
	for _, mv := range moves[1:] {
		before := s
		var ignored violations
		x.move(&s, mv, &ignored)
		trace.Steps = append(trace.Steps, x.describe(&before, &s, mv))
	}
	return trace
}

func (m *model) actorName(a int) string {
	if a < maxThreads {
		return fmt.Sprintf("thread %d", a)
	}
	return fmt.Sprintf("updater %d", a-maxThreads)
}

func (m *model) recordName(r record) string {
	if r == 0 {
		return "nil"
	}
	return fmt.Sprintf("%s%d", m.scopes[r.scope()].name, int(r-1)%maxRecords+1)
}

func (c credentials) String() string {
	return fmt.Sprintf("groups of %d, gid of %d, uid of %d, capabilities of %d", c[groups], c[gid], c[uid], c[capabilities])
}

func (m *model) describe(before, after *state, mv move) string {
	a := int(mv.actor)
	var what string
	switch mv.kind {
	case delivers:
		what = fmt.Sprintf("  signal for slot %d comes", mv.n)
	case handles:
		what = "  handler " + m.describeHandler(before, after, a)
	case steps:
		what = m.describeStep(before, after, a)
	}
	line := fmt.Sprintf("%-10s %s", m.actorName(a), what)
	for t := range m.Threads {
		if b, n := before.threads[t].wears, after.threads[t].wears; b != n {
			line = fmt.Sprintf("%-60s thread %d: %d %d %d %d", line, t, n[groups], n[gid], n[uid], n[capabilities])
		}
	}
	return line
}

func (m *model) describeHandler(before, after *state, t int) string {
	h := before.threads[t].handler
	end := ""
	if after.threads[t].handler.pc == idle {
		end = ": nothing to do"
	}
	switch pc := h.pc; {
	case pc == checksThread:
		return fmt.Sprintf("sees tid %d in slot %d%s", int(before.slots[h.slot].tid)-1, h.slot, end)
	case pc == checksState:
		return fmt.Sprintf("sees state %s%s", stateName(before.slots[h.slot].in), end)
	case pc == takes:
		return fmt.Sprintf("takes %s%s", m.recordName(before.slots[h.slot].wants), end)
	case pc == clears:
		return "stores nil over " + m.recordName(before.slots[h.slot].wants)
	case pc < marks:
		return fmt.Sprintf("sets %s from %s", partNames[pc-applies], m.recordName(h.record))
	default:
		return fmt.Sprintf("marks %s done", m.recordName(h.record))
	}
}

func stateName(in bool) string {
	if in {
		return "in"
	}
	return "busy"
}

func (m *model) describeStep(before, after *state, a int) string {
	in := m.at(before, a)
	switch in.op {
	case lockConnection:
		return fmt.Sprintf("locks connection %d", in.on)
	case unlockConnection:
		return fmt.Sprintf("unlocks connection %d", in.on)
	case setCurrent:
		return fmt.Sprintf("makes context %d the current one of connection %d", in.to, in.on)
	}
	w, name := &before.scopes[in.on], m.scopes[in.on].name
	n := after.scopes[in.on].slot
	old := m.recordName(before.slots[n].wants)
	switch in.op {
	case readCurrent:
		return fmt.Sprintf("%s: reads the current context: %d", name, after.scopes[in.on].token)
	case register:
		return fmt.Sprintf("%s: registers; the current context is %d", name, before.connections[m.scopes[in.on].connection].current)
	case unregister:
		return fmt.Sprintf("%s: unregisters", name)
	case lockScope:
		return fmt.Sprintf("%s: locks", name)
	case unlockScope:
		return fmt.Sprintf("%s: unlocks", name)
	case park:
		return fmt.Sprintf("%s: parks: slot %d is busy", name, n)
	case markBusy:
		return fmt.Sprintf("%s: slot %d is busy", name, n)
	case open:
		return fmt.Sprintf("%s: slot %d is in", name, n)
	case readWas:
		return fmt.Sprintf("%s: reads its %s, of %d", name, partNames[in.part], after.scopes[in.on].was[in.part])
	case takeSlot:
		return fmt.Sprintf("%s: takes slot %d", name, n)
	case clearSlot:
		return fmt.Sprintf("%s: slot %d wants nil, after %s", name, n, old)
	case nameSlot:
		return fmt.Sprintf("%s: slot %d is thread %d's", name, n, a)
	case unnameSlot:
		return fmt.Sprintf("%s: slot %d is nobody's", name, n)
	case putSlot:
		return fmt.Sprintf("%s: puts slot %d into the pool", name, n)
	case set:
		return fmt.Sprintf("%s: sets %s", name, partNames[in.part])
	case operate:
		return fmt.Sprintf("%s: operation", name)
	case markLeft:
		return fmt.Sprintf("%s: is left", name)
	case takeBack:
		return fmt.Sprintf("%s: takes back %s", name, old)
	case freeAll:
		return fmt.Sprintf("%s: frees all records", name)
	case raise:
		return fmt.Sprintf("%s: raises the server's capabilities", name)
	case restore:
		return fmt.Sprintf("%s: puts %s back", name, partNames[in.part])
	case takeWaiting:
		return fmt.Sprintf("%s: unparks: %s was waiting", name, old)
	case apply:
		return fmt.Sprintf("%s: sets %s from %s", name, partNames[in.part], m.recordName(record(before.actors[a].old)))
	case markDone:
		return fmt.Sprintf("%s: marks %s done", name, m.recordName(record(before.actors[a].old)))
	case skipIfLeft:
		return fmt.Sprintf("%s: sees left %t", name, w.left)
	case skipIfBusy:
		return fmt.Sprintf("%s: sees state %s of slot %d", name, stateName(before.slots[n].in), n)
	case skipIfWanted:
		return fmt.Sprintf("%s: sees %s in slot %d", name, old, n)
	case sweep:
		return fmt.Sprintf("%s: frees what is done", name)
	case publish:
		return fmt.Sprintf("%s: puts %s into slot %d, gets %s", name, m.recordName(after.slots[n].wants), n, old)
	case freeOld:
		return fmt.Sprintf("%s: frees %s", name, m.recordName(record(before.actors[a].old)))
	case send:
		if before.threads == after.threads {
			return fmt.Sprintf("%s: the signal is not sent", name)
		}
		return fmt.Sprintf("%s: sends thread %d a signal for slot %d", name, m.scopes[in.on].thread, n)
	case await:
		return fmt.Sprintf("%s: is back from sending the signal", name)
	}
	return "?"
}
