//go:build !386 && !arm

package thread

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/token"
)

// record is a context for the handler to put on a thread. It lies outside the Go heap and does not change once published; its
// layout is also in the handler's source. Whoever took it out of a slot, or found it done, owns it.
type record struct {
	done    int32 // set by the handler when it needs the record no more
	ngroups int32
	groups  unsafe.Pointer
	gid     uint32
	uid     uint32
	header  unix.CapUserHeader
	raised  [2]unix.CapUserData // the effective set as large as the permitted
	scope   [2]unix.CapUserData // what the scope has
}

const (
	recordSize = unsafe.Sizeof(record{})
	// ordinary is how many groups a record has room for that is used again.
	ordinary      = (4096 - int(recordSize)) / 4
	recordsPerMap = 64
)

// spare has records to use again. They are never unmapped; there are as many as there ever were at once.
var spare struct {
	mu      sync.Mutex
	records []*record
}

// newRecord makes a record for a thread whose capability sets are caps.
func newRecord(t *token.Token, groups []uint32, caps capability.Sets, scope token.CapSet) (*record, error) {
	r, err := allocateRecord(len(groups))
	if err != nil {
		return nil, err
	}
	r.ngroups, r.gid, r.uid = int32(len(groups)), t.GID(), t.UID()
	copy(unsafe.Slice((*uint32)(r.groups), len(groups)), groups)
	r.header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	caps.Effective = caps.Permitted
	r.raised = caps.Data()
	caps.Effective = scope
	r.scope = caps.Data()
	atomic.StoreInt32(&r.done, 0)
	return r, nil
}

func allocateRecord(groups int) (*record, error) {
	if groups > ordinary {
		b, err := mapMemory(int(recordSize) + 4*groups)
		if err != nil {
			return nil, err
		}
		return recordIn(b), nil
	}
	spare.mu.Lock()
	defer spare.mu.Unlock()
	if len(spare.records) == 0 {
		b, err := mapMemory(4096 * recordsPerMap)
		if err != nil {
			return nil, err
		}
		for ; len(b) > 0; b = b[4096:] {
			spare.records = append(spare.records, recordIn(b))
		}
	}
	n := len(spare.records) - 1
	r := spare.records[n]
	spare.records = spare.records[:n]
	return r, nil
}

func recordIn(b []byte) *record {
	r := (*record)(unsafe.Pointer(unsafe.SliceData(b)))
	r.groups = unsafe.Add(unsafe.Pointer(r), recordSize)
	return r
}

// mapMemory returns memory that the collector knows nothing of.
func mapMemory(size int) ([]byte, error) {
	b, err := unix.MmapPtr(-1, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, failed("mmap", err.(syscall.Errno))
	}
	return unsafe.Slice((*byte)(b), size), nil
}

// free takes back a record that nobody reads.
func (r *record) free() {
	if int(r.ngroups) > ordinary {
		_ = unix.MunmapPtr(unsafe.Pointer(r), recordSize+4*uintptr(r.ngroups))
		return
	}
	spare.mu.Lock()
	spare.records = append(spare.records, r)
	spare.mu.Unlock()
}

func (r *record) isDone() bool { return atomic.LoadInt32(&r.done) != 0 }

// put does on the calling thread what the handler does.
func (r *record) put() error {
	for _, step := range [...]struct {
		name    string
		call    uintptr
		a, b, c uintptr
	}{
		{"capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&r.header)), uintptr(unsafe.Pointer(&r.raised)), 0},
		{"setgroups", unix.SYS_SETGROUPS, uintptr(r.ngroups), uintptr(r.groups), 0},
		{"setresgid", unix.SYS_SETRESGID, uintptr(unchanged), uintptr(r.gid), uintptr(unchanged)},
		{"setresuid", unix.SYS_SETRESUID, uintptr(unchanged), uintptr(r.uid), uintptr(unchanged)},
		{"capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&r.header)), uintptr(unsafe.Pointer(&r.scope)), 0},
	} {
		if _, _, e := syscall.RawSyscall(step.call, step.a, step.b, step.c); e != 0 {
			return failed(step.name, e)
		}
	}
	return nil
}
