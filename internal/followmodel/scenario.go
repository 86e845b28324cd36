package followmodel

// Context is what a thread can wear: each of groups, gid, uid and capabilities is the one of some context.
type Context uint8

// The contexts. A scenario's connections and tokens use those between Server and nobody's as they like.
const (
	Server Context = 0
	Nobody Context = 13 // what a connection is changed to when its client's context is lost

	raised  Context = 14 // the server's capabilities while it puts its ids back
	garbage Context = 15 // what is in a record that was freed
)

// Fixed, as the connection of a scope, is none: the scope wears its token until it is left.
const Fixed = -1

// Scenario is what the actors do. Everything else, the order in which they do it and when signals come, is tried in every way.
type Scenario struct {
	Name string
	// Connections has what is the current context of each at the beginning.
	Connections []Context
	// Threads has, for each, the scopes that it enters one after the other.
	Threads [][]Scope
	// Updaters has, for each, the changes that it makes one after the other.
	Updaters [][]Update
	Slots    int
	// Prompt is that a system call does not return to a thread as long as a signal is pending for it, as with a thread that
	// does not block the signal. Otherwise a signal may come as late as it likes.
	Prompt bool
}

// Scope is a scope with what happens in it: an operation, and another one after each inner scope.
type Scope struct {
	Connection int
	Token      Context // of a Fixed one
	Inner      []Scope
	// Fails is that Enter's setuid fails, and nothing comes of the scope.
	Fails bool
}

// Update makes a context the current one of a connection.
type Update struct {
	Connection int
	To         Context
}
