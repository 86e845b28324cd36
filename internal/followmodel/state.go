package followmodel

const (
	maxThreads     = 2
	maxActors      = 4
	maxSlots       = 3
	maxConnections = 2
	maxScopes      = 4
	maxRecords     = 3 // of one scope
)

// state is all that one moment has. It has no pointers, so that equal moments are equal values.
//
// A pointer to something, and the number of a thread or actor, is its index and one, so that 0 is none.
type state struct {
	actors      [maxActors]actor
	threads     [maxThreads]thread
	slots       [maxSlots]slot
	connections [maxConnections]connection
	scopes      [maxScopes]scope
}

// actor is where a thread or an updater stands in its program. The threads come first.
type actor struct {
	pc       uint8
	old      uint8 // what Change got out of the slot
	affected uint8 // bits: the scopes that were registered when the updater made its context the current one
}

type thread struct {
	wears   credentials
	pending [maxSlots]uint8 // signals for each slot
	handler handler
	// returning is a system call that can't return before the pending signals were handled: see Scenario.Prompt.
	returning bool

	// excused counts the signals whose records the thread took itself. For property 6 only.
	excused [maxSlots]uint8
}

// credentials has the context that each part is of.
type credentials [parts]Context

const (
	groups = iota
	gid
	uid
	capabilities
	parts
)

var partNames = [parts]string{"groups", "gid", "uid", "capabilities"}

// handler is a signal being handled.
type handler struct {
	pc     uint8 // 0 is none
	slot   uint8
	record record
}

type slot struct {
	used  bool // not in the pool
	tid   uint8
	in    bool
	wants record
}

type connection struct {
	mutex   uint8 // the actor that has it
	current Context
}

type scope struct {
	mutex      uint8
	slot       uint8
	left       bool
	registered bool
	token      Context // t of Enter
	was        credentials
	records    [maxRecords]body

	// For the properties only.
	allowed uint16 // bits: what the connection had as current since the scope began
	applied record // the last one
}

// record is a pointer to one: those of a scope are numbered in the order in which they are published.
type record uint8

func recordOf(scope, n int) record   { return record(1 + scope*maxRecords + n) }
func (r record) scope() int          { return int(r-1) / maxRecords }
func (s *state) body(r record) *body { return &s.scopes[r.scope()].records[int(r-1)%maxRecords] }

// body is what a record points to. The list of published records is those that are live or done.
type body struct {
	context Context
	stage   stage
}

type stage uint8

const (
	unused stage = iota
	live
	done
	freed
)
