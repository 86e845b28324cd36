package token

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// overflow returns the ids with which the kernel reports users and groups that have none here (user_namespaces(7)). They may
// be those of an account too (nobody): what the kernel means by them can't be told, so they are never worn.
var overflow = sync.OnceValue(func() (ids struct{ uid, gid uint32 }) {
	ids.uid = overflowID("/proc/sys/kernel/overflowuid")
	ids.gid = overflowID("/proc/sys/kernel/overflowgid")
	return ids
})

func overflowID(path string) uint32 {
	const kernelDefault = 65534
	b, err := os.ReadFile(path)
	if err != nil {
		return kernelDefault
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return kernelDefault
	}
	return uint32(id)
}

// unreported returns the obstacle that one of the token's ids stands for "unknown", nil if none does.
func (t *Token) unreported() *obstacle {
	o := overflow()
	switch {
	case t.uid == o.uid:
		return &obstacle{reason: fmt.Sprintf("uid %d is how the kernel reports a user that it can't map", o.uid)}
	case t.gid == o.gid:
		return &obstacle{reason: fmt.Sprintf("gid %d is how the kernel reports a group that it can't map", o.gid)}
	case slices.Contains(t.groups, o.gid):
		return &obstacle{reason: fmt.Sprintf("supplementary group %d is how the kernel reports a group that it can't map", o.gid)}
	}
	return nil
}
