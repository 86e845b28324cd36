package followmodel

// Where a handler stands. Between applying and marking there is one step for each part.
const (
	idle uint8 = iota
	checksThread
	checksState
	takes
	clears // only without HandlerExchanges
	applies
	marks = applies + parts
)

// deliver starts the handler on thread t for a signal that names a slot. It takes no time: the first step comes after it.
func (m *model) deliver(s *state, t, n int) {
	th := &s.threads[t]
	th.pending[n]--
	th.handler = handler{pc: checksThread, slot: uint8(n)}
	if m.without[HandlerChecksThread] {
		th.handler.pc = checksState
		m.skipState(&th.handler)
	}
}

func (m *model) skipState(h *handler) {
	if m.without[HandlerChecksState] {
		h.pc = takes
	}
}

// handle is the next step of the handler on thread t.
func (m *model) handle(s *state, t int, broken *violations) {
	th := &s.threads[t]
	h := &th.handler
	sl := &s.slots[h.slot]
	switch pc := h.pc; {
	case pc == checksThread:
		h.pc = checksState
		m.skipState(h)
		if sl.tid != uint8(t+1) {
			m.useless(s, t)
		}
	case pc == checksState:
		h.pc = takes
		if !sl.in {
			m.useless(s, t)
		}
	case pc == takes:
		h.record = sl.wants
		h.pc = applies
		if h.record == 0 {
			m.useless(s, t)
		} else if m.without[HandlerExchanges] {
			h.pc = clears
		} else {
			sl.wants = 0
		}
	case pc == clears:
		sl.wants = 0
		h.pc = applies
	case pc < marks:
		m.checkMeant(s, t, h.record, broken)
		th.wears[pc-applies] = m.read(s, h.record, broken)
		h.pc++
	default:
		m.markDone(s, h.record, broken)
		*h = handler{}
	}
}

// useless ends a handler that has nothing to do.
func (m *model) useless(s *state, t int) {
	th := &s.threads[t]
	n := th.handler.slot
	if sl := &s.slots[n]; th.excused[n] > 0 && (sl.wants == 0 || sl.tid != uint8(t+1)) {
		th.excused[n]--
	}
	th.handler = handler{}
}

// read returns the context in a record.
func (m *model) read(s *state, r record, broken *violations) Context {
	b := s.body(r)
	if b.stage == freed {
		broken.add(Records, "record %s is read after it was freed", m.recordName(r))
	}
	return b.context
}

func (m *model) markDone(s *state, r record, broken *violations) {
	b := s.body(r)
	if b.stage == freed {
		broken.add(Records, "record %s is marked as done after it was freed", m.recordName(r))
		return
	}
	b.stage = done
}

func (m *model) free(s *state, r record, broken *violations) {
	b := s.body(r)
	if b.stage == freed {
		broken.add(Records, "record %s is freed twice", m.recordName(r))
	}
	*b = body{context: garbage, stage: freed}
}
