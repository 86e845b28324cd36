package procevents

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The process connector's numbers, of linux/connector.h and linux/cn_proc.h.
const (
	index = 1 // CN_IDX_PROC
	value = 1 // CN_VAL_PROC
	group = 1 << (index - 1)

	subscribe   = 1 // PROC_CN_MCAST_LISTEN
	unsubscribe = 2 // PROC_CN_MCAST_IGNORE

	eventNone = 0x000 // PROC_EVENT_NONE: the answer to a request
	eventUID  = 0x004 // PROC_EVENT_UID
	eventGID  = 0x040 // PROC_EVENT_GID
	eventName = 0x200 // PROC_EVENT_COMM

	// allEvents is what the kernel takes for PROC_EVENT_ALL.
	allEvents = 0
)

// Offsets in a message: a struct nlmsghdr, a struct cn_msg and a struct proc_event follow one another.
const (
	offsetLength     = 0
	offsetIndex      = unix.SizeofNlMsghdr
	offsetValue      = offsetIndex + 4
	offsetAnswer     = offsetIndex + 12
	offsetDataLength = offsetIndex + 16
	offsetData       = offsetIndex + 20

	offsetWhat    = offsetData
	offsetDetails = offsetData + 16
	offsetError   = offsetDetails
	offsetThread  = offsetDetails
	offsetProcess = offsetDetails + 4

	// atLeast is the length of the shortest event that is looked at, a change of ids. The kernel sends all at the length of the
	// longest.
	atLeast = offsetDetails + 16
)

// event is what this package reads of a struct proc_event.
type event struct {
	what uint32
	// answers is the number of the request plus one, in an answer.
	answers uint32
	// thread is the thread that the event is of; an answer has its error here.
	thread int32
}

// parse returns the event of a message, and false if b is not exactly one message of the process connector.
func parse(b []byte) (event, bool) {
	native := binary.NativeEndian
	if len(b) < atLeast ||
		uint64(native.Uint32(b[offsetLength:])) != uint64(len(b)) ||
		native.Uint32(b[offsetIndex:]) != index ||
		native.Uint32(b[offsetValue:]) != value ||
		int(native.Uint16(b[offsetDataLength:])) != len(b)-offsetData {
		return event{}, false
	}
	return event{
		what:    native.Uint32(b[offsetWhat:]),
		answers: native.Uint32(b[offsetAnswer:]),
		thread:  int32(native.Uint32(b[offsetThread:])),
	}, true
}

// request returns a message with a struct proc_input. A kernel before Linux 6.6 expects a shorter one and ignores it.
func request(operation, events, number uint32) []byte {
	const length = offsetData + 8
	native := binary.NativeEndian
	b := make([]byte, length)
	native.PutUint32(b[offsetLength:], length)
	native.PutUint16(b[4:], unix.NLMSG_DONE)
	native.PutUint32(b[offsetIndex:], index)
	native.PutUint32(b[offsetValue:], value)
	native.PutUint32(b[offsetAnswer:], number)
	native.PutUint16(b[offsetDataLength:], length-offsetData)
	native.PutUint32(b[offsetData:], operation)
	native.PutUint32(b[offsetData+4:], events)
	return b
}
