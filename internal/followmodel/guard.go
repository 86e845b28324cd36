package followmodel

// Guard is one precaution of the protocol, or one thing that it takes for granted. Each can be taken out.
type Guard uint

// The precautions, and what the model does without them.
const (
	// HandlerChecksThread: otherwise a signal counts for the slot that it names, whoever has the slot by now.
	HandlerChecksThread Guard = iota
	// HandlerChecksState: otherwise the handler also works while the thread is busy changing its credentials itself.
	HandlerChecksState
	// HandlerExchanges: otherwise the handler loads the slot's record and then stores nil, in two steps.
	HandlerExchanges
	// EnterParksOuter: otherwise the slot of the outer scope stays open while the inner one is worn.
	EnterParksOuter
	// ParkLocks: otherwise the outer scope is parked by a store alone.
	ParkLocks
	// EnterClearsSlot: otherwise a slot is used with what its last user left in it.
	EnterClearsSlot
	// EnterMarksBusy: otherwise Enter relies on a slot in the pool being busy.
	EnterMarksBusy
	// EnterLocks: otherwise Enter opens the slot without the scope's mutex.
	EnterLocks
	// RegisterCompares: otherwise what changed between reading the context and registering is not looked for.
	RegisterCompares
	// UnregisterFirst: otherwise the scope is taken from the connection's list only after Leave.
	UnregisterFirst
	// LeaveMarksBusy: otherwise the slot stays open until it is given back, and in the pool.
	LeaveMarksBusy
	// LeaveLocks: otherwise Leave says that it left, and takes the record back, without the scope's mutex.
	LeaveLocks
	// LeaveTakesBack: otherwise a record that nobody took stays in the slot, and is freed with the others.
	LeaveTakesBack
	// RestoreFirst: otherwise the slot is given back before the thread is what it was.
	RestoreFirst
	// UnparkLocks: otherwise the waiting record is taken, and the slot opened, without the outer scope's mutex.
	UnparkLocks
	// UnparkApplies: otherwise the slot is only opened again.
	UnparkApplies
	// FailureUnparks: otherwise an Enter that fails leaves the outer scope parked.
	FailureUnparks
	// LeaveFreesSlot: otherwise the slot never comes back to the pool.
	LeaveFreesSlot
	// ConnectionFirst: otherwise Leave unregisters with the scope's mutex held, which is the other order than the updater's.
	ConnectionFirst
	// ChangesUnderLock: otherwise an updater copies the list of scopes and changes them after unlocking the connection.
	ChangesUnderLock
	// ChangeChecksLeft: otherwise Change also publishes in a scope that was left.
	ChangeChecksLeft
	// FreeOnlyDone: otherwise Change frees all records that were published before, done or not.
	FreeOnlyDone
	// PublishFirst: otherwise the signal is sent before the record is in the slot.
	PublishFirst
	// OneSignal: otherwise a signal is sent too for a record that replaces one which nobody took yet.
	OneSignal

	// SignalsQueue is what real-time signals do. Otherwise a second signal is dropped while one is pending.
	SignalsQueue
	// SignalsSent is that sending always succeeds. Otherwise it may fail, as with RLIMIT_SIGPENDING used up, and Change goes on.
	SignalsSent
	// OwnSignalFirst is that a thread handles what it sends itself before the call returns. Otherwise it may come later.
	OwnSignalFirst

	guards
)

var guardNames = [guards]string{
	"HandlerChecksThread", "HandlerChecksState", "HandlerExchanges", "EnterParksOuter", "ParkLocks", "EnterClearsSlot",
	"EnterMarksBusy", "EnterLocks", "RegisterCompares", "UnregisterFirst", "LeaveMarksBusy", "LeaveLocks", "LeaveTakesBack", "RestoreFirst", "UnparkLocks",
	"UnparkApplies", "FailureUnparks", "LeaveFreesSlot", "ConnectionFirst", "ChangesUnderLock", "ChangeChecksLeft", "FreeOnlyDone",
	"PublishFirst", "OneSignal", "SignalsQueue", "SignalsSent", "OwnSignalFirst",
}

func (g Guard) String() string { return guardNames[g] }
