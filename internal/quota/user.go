package quota

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// User is somebody whom bounds are for: a uid, or all the uids of a range that /etc/subuid (subuid(5)) gives to one user, who can be each
// of them.
type User uint64

// root can take everything anyway.
const root User = 0

// ranged marks a User that is a range.
const ranged User = 1 << 32

// Of returns the user that uid belongs to.
func Of(uid uint32) User {
	r := subordinate()
	for i := range r.ranges {
		if uid >= r.ranges[i].first && uid-r.ranges[i].first < r.ranges[i].count {
			return ranged | User(r.ranges[i].first)
		}
	}
	return User(uid)
}

type uidRange struct{ first, count uint32 }

// ranges are those of the file, as it was at a time.
type ranges struct {
	ranges   []uidRange
	modified time.Time
	looked   time.Time
}

// lookEvery is how long the file is not looked at again.
const lookEvery = 10 * time.Second

var (
	subordinates atomic.Pointer[ranges]
	looking      sync.Mutex
	subuidFile   = "/etc/subuid"
)

// subordinate returns the ranges. One goroutine at a time looks whether the file is another, and the others don't wait for it.
func subordinate() *ranges {
	r := subordinates.Load()
	if r != nil && time.Since(r.looked) < lookEvery || !looking.TryLock() {
		if r == nil {
			return &ranges{}
		}
		return r
	}
	defer looking.Unlock()
	now := &ranges{looked: time.Now()}
	if info, err := os.Stat(subuidFile); err == nil {
		now.modified = info.ModTime()
		if r != nil && r.modified.Equal(now.modified) {
			now.ranges = r.ranges
		} else {
			now.ranges = readRanges(subuidFile)
		}
	}
	subordinates.Store(now)
	return now
}

// readRanges reads lines of the form user:first:count. Whatever is not one gives nobody anything.
func readRanges(path string) []uidRange {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var found []uidRange
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) != 3 {
			continue
		}
		first, firstErr := strconv.ParseUint(fields[1], 10, 32)
		count, countErr := strconv.ParseUint(fields[2], 10, 32)
		if firstErr == nil && countErr == nil && count > 0 {
			found = append(found, uidRange{uint32(first), uint32(count)})
		}
	}
	return found
}
