package token

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/wearing"
)

// Self returns the token of the calling thread, with its effective ids: inside a scope that is the context it wears, with the level, the
// origin and all else that its owner has said of it, outside one the process's own. Unlike a client's token it has the thread's capabilities only if it is of uid 0, as it would have
// them in a scope.
func Self() (*Token, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	groups, err := unix.Getgroups()
	if err != nil {
		return nil, fmt.Errorf("token of this thread: getgroups: %w", err)
	}
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, fmt.Errorf("token of this thread: capget: %w", err)
	}
	t := &Token{
		uid: uint32(unix.Geteuid()), gid: uint32(unix.Getegid()),
		seen: Capabilities{
			Permitted: CapSet(data[0].Permitted) | CapSet(data[1].Permitted)<<32,
			Effective: CapSet(data[0].Effective) | CapSet(data[1].Effective)<<32,
		},
		claimed: AllCapabilities,
		source:  Source{Kind: FromThread, PID: os.Getpid()},
	}
	for _, g := range groups {
		t.groups = append(t.groups, uint32(g))
	}
	if label, err := os.ReadFile("/proc/thread-self/attr/current"); err == nil {
		t.label = strings.TrimRight(string(label), "\x00\n")
	}
	t.obstacle = t.unreported()
	if w, ok := wearing.Worn().(*Token); ok && w != nil {
		t.level, t.effectiveOnly, t.claimed, t.via = w.Level(), w.effectiveOnly, w.claimed, w.via
		if w.origin != nil {
			t.from(w.origin)
		}
		if w.obstacle == nil {
			t.obstacle = nil // whoever let the thread wear it has set that aside
		}
	}
	return t, nil
}
