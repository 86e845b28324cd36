package token

import "unsafe"

// Bytes returns about how much memory t takes, for those who bound how much they keep for others. What t has in common with the
// token beside it, which may be nil, is not counted: long lists of groups that are equal are kept once.
func (t *Token) Bytes(beside *Token) int {
	if t == nil {
		return 0
	}
	if beside == nil {
		beside = new(Token)
	}
	n := int(unsafe.Sizeof(*t)) + len(t.label)
	if unsafe.SliceData(t.groups) != unsafe.SliceData(beside.groups) {
		n += 4 * len(t.groups)
	}
	if unsafe.SliceData(t.via) != unsafe.SliceData(beside.via) {
		for i := range t.via {
			n += int(unsafe.Sizeof(t.via[i])) + len(t.via[i].Program)
		}
	}
	if o := t.origin; o != nil && o != beside.origin {
		n += int(unsafe.Sizeof(*o)) + len(o.Account) + len(o.Domain)
		for _, sid := range o.SIDs {
			n += int(unsafe.Sizeof(sid)) + len(sid)
		}
	}
	return n
}
