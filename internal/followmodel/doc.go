// Package followmodel is a model of how a thread that is inside a scope follows its client: how its credentials are changed, from
// another thread, in the middle of whatever it does. Only the thread itself can change them, so it is made to, by a signal. The
// tests try every order in which the steps of all who take part can happen, with signals that come as late as they like, and find
// that what the protocol promises is true; and that it is not, with any guard taken out that no other guard stands in for.
//
// # Who takes part
//
// A connection has a mutex, its current context, and the list of the scopes that were entered for it. A scope has a mutex, a
// mark that it was left, and, from Enter to Leave, a slot. Slots are what the signal handler can read: the thread that has the
// slot, a state, busy or in, and a pointer to the record that the thread is to apply, or nil. They come from a pool; after Leave
// another scope gets the slot, perhaps on another thread. A record is a context, which never changes, and a mark that it was
// applied.
//
// # The thread
//
//   - It reads the connection's current context, and enters. If it wears another followed scope already, that one's slot is made
//     busy, under that scope's mutex: it is parked. Then it reads what the thread is now, for Leave; takes a slot, sets record to
//     nil, tid to itself and state to busy; changes groups, gid, uid and capabilities; and, under the scope's mutex, sets the
//     state to in.
//   - It registers in the connection's list and, with the list still locked, compares: if the current context is not what it
//     entered with any more, it changes its own scope.
//   - It does what the server wants done, and perhaps enters other scopes, followed ones or of a fixed token.
//   - It unregisters. It leaves: state is busy; under the scope's mutex, the scope is marked as left and the record is taken out of
//     the slot; all records of the scope are freed; capabilities, uid, groups, gid and capabilities become what they were; the slot
//     goes back to the pool. An outer scope is unparked, under its mutex: the record that came meanwhile, if any, is applied,
//     as what Leave has put back is older; then its state is in. An Enter that fails after parking unparks as well.
//
// # The updater
//
// It locks the connection, sets the current context and, with the list still locked, changes each scope on it. Change is done
// under the scope's mutex. It does nothing in a scope that was left. It frees those of the scope's records that were applied,
// exchanges the pointer in the slot for one to a new record, and frees the record that it gets back: nobody took it. If it got
// back none, and the state is in, it sends the thread a signal that names the slot. If it got one back, or the state is busy, no
// signal is needed: that of the earlier record is still to come, or the thread looks for itself when it unparks.
//
// # The handler
//
// It does nothing if the slot is not its thread's, or busy. It exchanges the record for nil, and if there was one applies it, groups,
// gid, uid and capabilities, and marks it as applied. The thread does nothing else meanwhile. A signal may come late, when its
// record was taken already, or the slot is another scope's; such a signal may also bring a record of the new scope earlier than
// its own signal would.
//
// # What is promised
//
// The [Property] constants say it. P6, [Bounded], is more than it seems: only where a system call does not return while a signal is
// pending (the thread does not block it) is never more than one pending on a thread. Where signals can be late, a thread that
// takes a record itself leaves the signal behind, and the next record sends another.
//
// # What is taken for granted
//
// Signals queue, each with its slot: with a signal that is merged with one that is pending, an update gets lost as soon as a thread
// uses two slots. Sending one succeeds: after a failure that Change does nothing about, the record waits in the slot for a
// signal that never comes, and those that replace it do too. The signal that a thread sends itself is handled before that call
// returns. Memory is sequentially consistent, as sync/atomic has it. What the handler needs does not fail.
//
// # How it is searched
//
// A scenario says which scopes the threads enter, how they nest, and which changes the updaters make. Each thread and updater gets a
// program whose steps are single accesses to what others can see, and single system calls. From the first [state] all that can
// happen next is tried, breadth first, until there is no state that was not seen. There is no reduction, no bound and no hashing
// of states to less than they are.
package followmodel
