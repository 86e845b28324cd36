package thread

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slot is what the handler knows of one followed [Worn]. It lies outside the Go heap, because the handler runs where the Go world
// may be in any state. Its layout is also in the handler's source.
type slot struct {
	tid     int32 // of the thread that the token is on, 0 if nobody uses the slot
	state   int32 // slotBusy or slotIn
	want    unsafe.Pointer
	heard   int32 // set by the handler when a signal has come
	changed int32 // set by the handler once it has changed the thread
	_       [slotSize - 24]byte
}

const (
	slotSize = 64 // a cache line
	// maxSlots is how many followed tokens may be worn at once. Go ends a process that has more than 10,000 threads, unless it
	// is told otherwise; memory is taken only for those in use.
	maxSlots = 1 << 16
)

// The states of a slot. The handler changes the thread only when it is slotIn.
const (
	slotBusy int32 = 1 // entering, leaving, or another token is worn inside
	slotIn   int32 = 2
)

// What the handler reads besides: see the assembly.
var (
	slotBase         unsafe.Pointer // of maxSlots slots
	slotCount        uint64         //lint:ignore U1000 the handler reads it
	handlerPID       int32
	handlerFailed    [len(handlerFailedText)]byte     // filled in by installHandler
	handlerFailedLen = uint64(len(handlerFailedText)) //lint:ignore U1000 the handler reads it
)

const handlerFailedText = "guise: the process ends here: a thread's credentials could not be changed as its client's did\n"

var slots struct {
	mu   sync.Mutex
	free []uint32 // indices that have been used before
	next uint32   // the first that has not
}

var errNoSlots = errors.New("too many scopes at once that follow their clients")

// mapSlots makes the memory of the slots.
func mapSlots() error {
	b, err := unix.Mmap(-1, 0, maxSlots*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	slotBase, slotCount = unsafe.Pointer(unsafe.SliceData(b)), maxSlots
	slots.next = 1 // 0 is also what a value that did not arrive looks like
	return nil
}

func slotAt(index uint32) *slot {
	return (*slot)(unsafe.Add(slotBase, uintptr(index)*slotSize))
}

// takeSlot returns a slot for the thread tid. Nothing can be published in it before it is handed on.
func takeSlot(tid int32) (uint32, error) {
	slots.mu.Lock()
	var index uint32
	switch n := len(slots.free); {
	case n > 0:
		index, slots.free = slots.free[n-1], slots.free[:n-1]
	case slots.next < maxSlots:
		index = slots.next
		slots.next++
	default:
		slots.mu.Unlock()
		return 0, errNoSlots
	}
	slots.mu.Unlock()
	s := slotAt(index)
	atomic.StorePointer(&s.want, nil)
	atomic.StoreInt32(&s.heard, 0)
	atomic.StoreInt32(&s.changed, 0)
	atomic.StoreInt32(&s.state, slotBusy)
	atomic.StoreInt32(&s.tid, tid)
	return index, nil
}

// releaseSlot gives a slot back. A signal for it may still come: the handler finds that it is not that thread's any more, or that
// there is nothing in it.
func releaseSlot(index uint32) {
	atomic.StoreInt32(&slotAt(index).tid, 0)
	slots.mu.Lock()
	slots.free = append(slots.free, index)
	slots.mu.Unlock()
}

func (s *slot) setState(state int32) { atomic.StoreInt32(&s.state, state) }

// publish puts r in the slot and returns the record that was there and that nobody has taken, nil if there was none.
func (s *slot) publish(r *record) *record {
	return (*record)(atomic.SwapPointer(&s.want, unsafe.Pointer(r)))
}

// take takes what is in the slot, as the handler does.
func (s *slot) take() *record { return s.publish(nil) }

func (s *slot) wasChanged() bool { return atomic.LoadInt32(&s.changed) != 0 }
