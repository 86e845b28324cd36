package followmodel

// at returns the step before which an actor stands, nil at its end.
func (m *model) at(s *state, a int) *instruction {
	if pc := int(s.actors[a].pc); pc < len(m.programs[a]) {
		return &m.programs[a][pc]
	}
	return nil
}

func (m *model) start() state {
	var s state
	for c, current := range m.Connections {
		s.connections[c].current = current
	}
	return s
}

// ways returns in how many ways an actor can do its next step now, 0 if it has to wait.
func (m *model) ways(s *state, a int) int {
	in := m.at(s, a)
	if in == nil {
		return 0
	}
	if a < maxThreads && s.threads[a].returning && s.threads[a].signals() {
		return 0
	}
	can := true
	switch in.op {
	case lockConnection:
		can = s.connections[in.on].mutex == 0
	case lockScope:
		can = s.scopes[in.on].mutex == 0
	case await:
		can = !s.threads[a].signals()
	case takeSlot:
		n := 0
		for i := range m.Scenario.Slots {
			if !s.slots[i].used {
				n++
			}
		}
		return n
	case send:
		if m.without[SignalsSent] {
			return 2
		}
	}
	if can {
		return 1
	}
	return 0
}

func (t *thread) signals() bool { return t.pending != [maxSlots]uint8{} }

// step does an actor's next step, in one of the ways that it has.
func (m *model) step(s *state, a, way int, broken *violations) {
	me := &s.actors[a]
	in := m.at(s, a)
	me.pc++
	m.perform(s, a, way, in, broken)
	// Who is on the list is known already: looking is no step that others could see.
	for in := m.at(s, a); in != nil && in.op == skipOthers; in = m.at(s, a) {
		me.pc++
		if me.affected&(1<<in.on) == 0 {
			me.pc = uint8(in.other)
		}
	}
	if a < maxThreads && m.Prompt {
		t := &s.threads[a]
		t.returning = in.op.systemCall() && t.signals()
	}
}

func (o op) systemCall() bool {
	switch o {
	case readWas, set, operate, raise, restore, apply, send:
		return true
	}
	return false
}

// perform is what a step does.
func (m *model) perform(s *state, a, way int, in *instruction, broken *violations) {
	me := &s.actors[a]
	skip := func(really bool) {
		if really {
			me.pc = uint8(in.other)
		}
	}
	switch in.op {
	case lockConnection:
		s.connections[in.on].mutex = uint8(a + 1)
		return
	case unlockConnection:
		s.connections[in.on].mutex = 0
		return
	case setCurrent:
		s.connections[in.on].current = in.to
		me.affected = 0
		for w, info := range m.scopes {
			if sc := &s.scopes[w]; info.connection == in.on {
				if sc.registered {
					me.affected |= 1 << w
				}
				if sc.allowed != 0 {
					sc.allowed |= 1 << in.to
				}
			}
		}
		return
	}

	w, info := &s.scopes[in.on], m.scopes[in.on]
	t := &s.threads[info.thread]
	sl := &s.slots[w.slot]
	switch in.op {
	case readCurrent:
		w.token = s.connections[info.connection].current
		w.allowed = 1 << w.token
	case register:
		w.registered = true
		current := s.connections[info.connection].current
		w.allowed = 1 << current
		skip(w.token == current || m.without[RegisterCompares])
	case unregister:
		w.registered = false
	case lockScope:
		w.mutex = uint8(a + 1)
	case unlockScope:
		w.mutex = 0
	case park, markBusy:
		sl.in = false
	case open:
		sl.in = true
	case readWas:
		w.was[in.part] = t.wears[in.part]
	case takeSlot:
		for n := range m.Scenario.Slots {
			if s.slots[n].used {
				continue
			}
			if way == 0 {
				w.slot = uint8(n)
				s.slots[n].used = true
				break
			}
			way--
		}
	case clearSlot:
		m.excuse(s, info.thread, w.slot)
		sl.wants = 0
	case nameSlot:
		sl.tid = uint8(info.thread + 1)
	case unnameSlot:
		m.excuse(s, info.thread, w.slot)
		sl.tid = 0
	case putSlot:
		sl.used = false
	case set:
		if !info.followed() {
			w.token, w.allowed = info.token, 1<<info.token
		}
		t.wears[in.part] = w.token
	case operate:
		m.checkOperation(s, info.thread, in.on, broken)
	case markLeft:
		w.left = true
	case takeBack:
		m.excuse(s, info.thread, w.slot)
		sl.wants = 0
	case raise:
		w.allowed, w.token, w.applied = 0, 0, 0
		t.wears[capabilities] = raised
	case restore:
		t.wears[in.part] = w.was[in.part]
		w.was[in.part] = 0
	case takeWaiting:
		m.excuse(s, info.thread, w.slot)
		me.old = uint8(sl.wants)
		sl.wants = 0
		skip(me.old == 0)
	case apply:
		m.checkOrder(s, record(me.old), broken)
		t.wears[in.part] = m.read(s, record(me.old), broken)
	case markDone:
		m.markDone(s, record(me.old), broken)
		me.old = 0
	case skipIfLeft:
		skip(w.left)
	case skipIfBusy:
		skip(!sl.in)
	case skipIfWanted:
		skip(sl.wants != 0)
	case freeAll:
		m.freeSome(s, in.on, true, broken)
	case sweep:
		// All at once: of a scope's records only the one that its thread is applying can become done meanwhile.
		m.freeSome(s, in.on, m.without[FreeOnlyDone], broken)
	case publish:
		me.old = uint8(sl.wants)
		to := in.to
		if a < maxThreads {
			to = s.connections[info.connection].current
		}
		sl.wants = w.publish(in.on, to)
		skip(me.old == 0)
	case freeOld:
		m.free(s, record(me.old), broken)
		me.old = 0
		me.pc = uint8(in.other)
	case send:
		if way == 1 || m.without[SignalsQueue] && t.signals() {
			return
		}
		t.pending[w.slot]++
	case await:
	default:
		panic("followmodel: no such step")
	}
}

func (w *scope) publish(me int, to Context) record {
	for n := range w.records {
		if w.records[n].stage == unused {
			w.records[n] = body{to, live}
			return recordOf(me, n)
		}
	}
	panic("followmodel: a scope is changed more often than the model has records for")
}

// freeSome frees the records of a scope that are done, or all that are left.
func (m *model) freeSome(s *state, w int, all bool, broken *violations) {
	for n, b := range s.scopes[w].records {
		if b.stage == done || all && b.stage == live {
			m.free(s, recordOf(w, n), broken)
		}
	}
}

// excuse counts a record that a thread is about to take out itself while its signal is on the way.
func (m *model) excuse(s *state, t int, n uint8) {
	th := &s.threads[t]
	if s.slots[n].wants != 0 && th.excused[n] < th.pending[n] {
		th.excused[n]++
	}
}
