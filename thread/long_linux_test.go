package thread_test

import (
	"os"
	"runtime"
	"testing"

	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// TestWornThatIsKeptTakesLittleMemory: a connection keeps one for its next scope, whoever its client was.
func TestWornThatIsKeptTakesLittleMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it acts as somebody who has many groups")
	}
	const many, groups = 64, 65536
	list := make([]uint32, groups)
	for i := range list {
		list[i] = 100000 + uint32(i)
	}
	of := func(groups []uint32) *token.Token {
		tok, err := token.FromIDs(61001, 61001, groups)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	long, short := of(list), of(list[:3])
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	follows := thread.Following() == nil
	before := heap()
	all := make([]thread.Worn, many)
	for i := range all {
		w := &all[i]
		w.Follow = follows
		if err := w.Enter(long); err != nil {
			t.Fatal(err)
		}
		if follows && i%2 == 0 {
			if err := w.Change(short); err != nil {
				t.Error(err)
			}
		}
		if err := w.Leave(); err != nil {
			t.Fatal(err)
		}
	}
	const most = 4 << 20
	if after := heap(); after > before+most {
		t.Errorf("%d that were worn with %d groups take %d MiB afterwards, want at most %d", many, groups, (after-before)>>20, most>>20)
	}
	runtime.KeepAlive(all)
	runtime.KeepAlive(long)
	runtime.KeepAlive(short)
}
