package token

import (
	"unique"
	"unsafe"
)

// groupList is the supplementary groups of a token, sorted. Nobody changes them.
type groupList []uint32

// shortList is how many groups an ordinary account has at most. Longer lists are shared: a process may have 65536 groups, and show them
// as often as it likes.
const shortList = 32

// keptList keeps a shared list where the next equal one finds it.
type keptList = unique.Handle[string]

// shareGroups returns a list that is equal to ids, at least one, and the same memory as all others of which that can be said. The list is
// found for as long as somebody keeps the second result. With own the list is ids itself; otherwise those stay the caller's.
func shareGroups(ids []uint32) (list groupList, kept keptList, own bool) {
	first := unsafe.SliceData(ids)
	kept = unique.Make(unsafe.String((*byte)(unsafe.Pointer(first)), 4*len(ids)))
	shared := (*uint32)(unsafe.Pointer(unsafe.StringData(kept.Value())))
	// Make copies what it has not yet, but does not promise to.
	return unsafe.Slice(shared, len(ids)), kept, shared == first
}
