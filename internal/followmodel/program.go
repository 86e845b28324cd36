package followmodel

// instruction is one step of a thread or an updater: one system call, or one access to what others can see.
type instruction struct {
	op    op
	on    int // the connection of the operations on connections, else the scope
	part  int
	to    Context
	other int // where a step goes on that does not go on with the next

	// What is true of an actor that stands before this step. For the properties only.
	wears    int  // the scope whose records the thread may be given, or none
	home     bool // the thread wears nothing
	changing int  // the connection whose scopes are being changed, or none
}

const none = -1

type op uint8

const (
	lockConnection op = iota
	unlockConnection
	readCurrent  // t := c.current
	setCurrent   // c.current = to, and the list of scopes is read
	register     // and goes on at other if c.current is t still
	unregister   //
	skipOthers   // goes on at other if the scope is not on the list
	lockScope    //
	unlockScope  //
	park         // state = busy, of an outer scope
	readWas      // a part
	takeSlot     // any of the pool's
	clearSlot    // want = nil
	nameSlot     // tid = me
	markBusy     // state = busy
	set          // a part, to the token's
	open         // state = in
	operate      // what the server does as its client
	markLeft     // left = true
	takeBack     // swap(want, nil)
	freeAll      // records
	raise        // the server's capabilities
	restore      // a part
	unnameSlot   // tid = 0
	putSlot      // into the pool
	takeWaiting  // swap(want, nil), goes on at other if there was none
	apply        // a part of the record that was waiting
	markDone     // that record
	skipIfLeft   // goes on at other if the scope is left
	sweep        // frees what is done
	publish      // swap(want, new record), goes on at other if it was nil
	freeOld      // what publish got back
	skipIfBusy   // goes on at other if the slot is busy
	skipIfWanted // goes on at other if the slot has a record
	send         // the signal
	await        // own signals

	ops
)

// scopeInfo is what never changes about a scope.
type scopeInfo struct {
	name       string
	thread     int
	connection int
	token      Context
	outer      int
	fails      bool
}

func (i scopeInfo) followed() bool { return i.connection != Fixed }

// model is a scenario as programs.
type model struct {
	Scenario
	without  [guards]bool
	programs [maxActors][]instruction
	scopes   []scopeInfo
}

func newModel(sc Scenario, without []Guard) *model {
	m := &model{Scenario: sc}
	for _, g := range without {
		m.without[g] = true
	}
	for t, scopes := range sc.Threads {
		for _, s := range scopes {
			m.number(t, none, s)
		}
	}
	next := 0
	for t, scopes := range sc.Threads {
		b := builder{model: m, thread: t, next: &next, now: instruction{wears: none, changing: none, home: true}}
		for _, s := range scopes {
			b.runAs(s)
		}
		m.programs[t] = b.code
	}
	for u, updates := range sc.Updaters {
		b := builder{model: m, thread: none, now: instruction{wears: none, changing: none}}
		for _, up := range updates {
			b.update(up)
		}
		m.programs[maxThreads+u] = b.code
	}
	return m
}

func (m *model) number(thread, outer int, s Scope) {
	me := len(m.scopes)
	m.scopes = append(m.scopes, scopeInfo{string(rune('A' + me)), thread, s.Connection, s.Token, outer, s.Fails})
	for _, inner := range s.Inner {
		m.number(thread, me, inner)
	}
}

// builder writes a program.
type builder struct {
	*model
	thread int
	next   *int // number of the next scope
	code   []instruction
	now    instruction // the properties' fields of what is written next
}

func (b *builder) add(o op, on int) *instruction {
	in := b.now
	in.op, in.on = o, on
	b.code = append(b.code, in)
	return &b.code[len(b.code)-1]
}

// here has those of the steps that were written since from and are of one of the operations go on with what is written next.
func (b *builder) here(from int, ops ...op) {
	for i := from; i < len(b.code); i++ {
		for _, o := range ops {
			if b.code[i].op == o {
				b.code[i].other = len(b.code)
			}
		}
	}
}

// runAs is RunAsClient, or RunAs for a fixed token.
func (b *builder) runAs(s Scope) {
	w := *b.next
	*b.next++
	c := s.Connection
	if s.Connection != Fixed {
		b.add(lockConnection, c)
		b.add(readCurrent, w)
		b.add(unlockConnection, c)
	}
	b.enter(w)
	if s.Fails {
		b.fail(w)
		return
	}
	if s.Connection != Fixed {
		b.add(lockConnection, c)
		start := len(b.code)
		b.add(register, w)
		b.change(w, 0)
		b.here(start, register)
		b.add(unlockConnection, c)
	}
	b.add(operate, w)
	for _, inner := range s.Inner {
		b.runAs(inner)
		b.add(operate, w)
	}
	unregister := func() {
		b.add(lockConnection, c)
		b.add(unregister, w)
		b.add(unlockConnection, c)
	}
	if s.Connection != Fixed && !b.without[UnregisterFirst] && !b.without[ConnectionFirst] {
		unregister()
	}
	b.leave(w, unregister)
	if s.Connection != Fixed && b.without[UnregisterFirst] {
		unregister()
	}
}

// outer returns the followed scope around w, if there is one.
func (b *builder) outer(w int) (int, bool) {
	o := b.scopes[w].outer
	return o, o != none && b.scopes[o].followed()
}

func (b *builder) enter(w int) {
	if outer, ok := b.outer(w); ok && !b.without[EnterParksOuter] {
		if !b.without[ParkLocks] {
			b.add(lockScope, outer)
		}
		b.add(park, outer)
		if !b.without[ParkLocks] {
			b.add(unlockScope, outer)
		}
	}
	b.now.wears = none
	for p := range parts {
		b.add(readWas, w).part = p
	}
	followed := b.scopes[w].followed()
	if followed {
		b.add(takeSlot, w)
		if !b.without[EnterClearsSlot] {
			b.add(clearSlot, w)
		}
		b.add(nameSlot, w)
		if !b.without[EnterMarksBusy] {
			b.add(markBusy, w)
		}
	}
	for p := range parts {
		if b.scopes[w].fails && p == uid {
			return
		}
		b.add(set, w).part = p
		b.now.home = false
	}
	if followed {
		b.now.wears = w
		if !b.without[EnterLocks] {
			b.add(lockScope, w)
		}
		b.add(open, w)
		if !b.without[EnterLocks] {
			b.add(unlockScope, w)
		}
	}
}

// fail is the rest of an Enter whose setuid failed.
func (b *builder) fail(w int) {
	b.takeOff(w)
	if outer, ok := b.outer(w); ok && !b.without[FailureUnparks] {
		b.unpark(outer)
	}
}

func (b *builder) leave(w int, unregister func()) {
	followed := b.scopes[w].followed()
	if followed {
		if !b.without[LeaveMarksBusy] {
			b.add(markBusy, w)
		}
		if !b.without[LeaveLocks] {
			b.add(lockScope, w)
		}
		if b.without[ConnectionFirst] {
			unregister()
		}
		b.add(markLeft, w)
		if !b.without[LeaveTakesBack] {
			b.add(takeBack, w)
		}
		if !b.without[LeaveLocks] {
			b.add(unlockScope, w)
		}
		b.add(freeAll, w)
	}
	b.takeOff(w)
	if outer, ok := b.outer(w); ok {
		b.unpark(outer)
	}
}

// takeOff puts back what the thread was, and the slot.
func (b *builder) takeOff(w int) {
	giveBack := func() {
		if b.scopes[w].followed() && !b.without[LeaveFreesSlot] {
			b.add(unnameSlot, w)
			b.add(putSlot, w)
		}
	}
	if b.without[RestoreFirst] {
		giveBack()
	}
	b.add(raise, w)
	b.now.wears = none
	for _, p := range []int{uid, groups, gid, capabilities} {
		b.add(restore, w).part = p
	}
	b.now.home = b.scopes[w].outer == none
	if !b.without[RestoreFirst] {
		giveBack()
	}
}

func (b *builder) unpark(outer int) {
	if !b.without[UnparkLocks] {
		b.add(lockScope, outer)
	}
	if !b.without[UnparkApplies] {
		start := len(b.code)
		b.add(takeWaiting, outer)
		for p := range parts {
			b.add(apply, outer).part = p
		}
		b.add(markDone, outer)
		b.here(start, takeWaiting)
	}
	b.add(open, outer)
	b.now.wears = outer
	if !b.without[UnparkLocks] {
		b.add(unlockScope, outer)
	}
}

func (b *builder) update(u Update) {
	c := u.Connection
	b.add(lockConnection, c)
	b.add(setCurrent, c).to = u.To
	b.now.changing = c
	if b.without[ChangesUnderLock] {
		b.add(unlockConnection, c)
	}
	for w, info := range b.scopes {
		if info.connection == c {
			start := len(b.code)
			b.add(skipOthers, w)
			b.change(w, u.To)
			b.here(start, skipOthers)
		}
	}
	b.now.changing = none
	if !b.without[ChangesUnderLock] {
		b.add(unlockConnection, c)
	}
}

// change is Change(w, to), on whichever actor. A thread changes its own scope to what is the connection's current context then.
func (b *builder) change(w int, to Context) {
	b.add(lockScope, w)
	start := len(b.code)
	if !b.without[ChangeChecksLeft] {
		b.add(skipIfLeft, w)
	}
	b.add(sweep, w)
	if b.without[PublishFirst] {
		b.add(skipIfBusy, w)
		b.add(skipIfWanted, w)
		b.send(w)
		b.here(start, skipIfBusy, skipIfWanted)
		b.add(publish, w).to = to
		b.add(freeOld, w)
		b.here(start, publish)
	} else {
		b.add(publish, w).to = to
		b.add(freeOld, w)
		b.here(start, publish)
		b.add(skipIfBusy, w)
		b.send(w)
		b.here(start, skipIfBusy)
	}
	b.here(start, skipIfLeft, freeOld)
	if b.without[OneSignal] {
		for i := start; i < len(b.code); i++ {
			if b.code[i].op == freeOld {
				b.code[i].other = i + 1
			}
		}
	}
	b.add(unlockScope, w)
}

func (b *builder) send(w int) {
	b.add(send, w)
	if b.thread != none && !b.without[OwnSignalFirst] {
		b.add(await, w)
	}
}
