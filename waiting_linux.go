package guise

import (
	"sync"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/quota"
	"github.com/guise-project/guise/token"
)

// What is taken off the channel before its place among the data is reached takes memory, as much as the client's groups and ways are
// long. More stays in the kernel's queue, whose length the sender pays for. docs/following.md has these bounds.
const (
	// mostWaiting is how many announcements may wait for their place on a connection.
	mostWaiting = 512
	// mostKept is how many bytes they may take on a connection, with those that came between writes. What is taken off last may go beyond it.
	mostKept = 1 << 20
	// mostKeptOfUser is the same for all connections of one user's.
	mostKeptOfUser = 16 << 20
	// keptInAnyCase is what a connection may have whatever its user's others have; and one announcement it always may.
	keptInAnyCase = 4 << 10
)

// kept is an announcement that is kept for later.
type kept struct {
	*announce.Announced
	bytes int
}

// keptBytes is about what an announcement takes besides its token.
const keptBytes = 512

// heard is what is kept of a source for which something may be acted on without a further announcement.
type heard struct {
	counts  int  // how many of these are of it: what was read last, the current context, and what waits
	between kept // the last that came between writes, if any did
}

// room reports whether another announcement may be taken off the channel.
func (f *following) room() bool {
	switch {
	case len(f.waiting) == 0: // reading would not get on
		return true
	case len(f.waiting) >= mostWaiting:
		return false
	case f.kept < keptInAnyCase:
		return true
	}
	return f.kept < mostKept && keptOfUsers.of(f.user) < mostKeptOfUser
}

// wait has a wait for its place.
func (f *following) wait(a *announce.Announced) {
	var last *token.Token
	if n := len(f.waiting); n > 0 {
		last = f.waiting[n-1].Token
	}
	f.waiting = append(f.waiting, f.keep(a, last))
	f.count(a.Source)
}

// reach moves on to what waits and begins at the place that reading has reached.
func (f *following) reach() {
	n := 0
	for ; n < len(f.waiting) && f.waiting[n].At <= f.at; n++ {
		a := f.waiting[n]
		f.place(a.Announced)
		f.uncount(a.Source)
		f.letGo(a)
	}
	clear(f.waiting[:n])
	f.waiting = f.waiting[n:]
}

// place makes a what was read last.
func (f *following) place(a *announce.Announced) {
	f.count(a.Source)
	f.uncount(f.placed.Source)
	f.placed = a
}

// takeBetween keeps a as the last of its source, if anything may be acted on for that source without a further announcement.
func (f *following) takeBetween(a *announce.Announced) {
	if s := f.sources[a.Source]; s != nil {
		f.letGo(s.between)
		s.between = f.keep(a, nil) // it may outlast everything that waits
	}
}

// since returns what the source of a has announced between writes after a, a itself if it has not.
func (f *following) since(a *announce.Announced) *announce.Announced {
	if s := f.sources[a.Source]; s != nil && s.between.Announced != nil && s.between.Sequence > a.Sequence {
		return s.between.Announced
	}
	return a
}

func (f *following) count(of uint64) {
	s := f.sources[of]
	if s == nil {
		s = new(heard)
		f.sources[of] = s
	}
	s.counts++
}

func (f *following) uncount(of uint64) {
	s := f.sources[of]
	if s.counts--; s.counts == 0 {
		f.letGo(s.between)
		delete(f.sources, of)
	}
}

// keep counts a as kept, without what it shares with the token beside it, which has to be counted for as long.
func (f *following) keep(a *announce.Announced, beside *token.Token) kept {
	k := kept{a, keptBytes + a.Token.Bytes(beside)}
	f.kept += k.bytes
	keptOfUsers.add(f.user, k.bytes)
	return k
}

func (f *following) letGo(k kept) {
	f.kept -= k.bytes
	keptOfUsers.add(f.user, -k.bytes)
}

// forget lets go of all that is kept for later. Nothing more is taken in then.
func (f *following) forget() {
	for _, a := range f.waiting {
		f.letGo(a)
	}
	for _, s := range f.sources {
		f.letGo(s.between)
	}
	f.waiting, f.sources = nil, nil
}

// keptOfUsers is how many bytes are kept for later on the connections of each user, of all listeners: a user is whose uid the kernel
// showed when it connected. A serverEnd's mu is locked before mu.
var keptOfUsers users

type users struct {
	mu    sync.Mutex
	bytes map[quota.User]int
}

func (u *users) of(user quota.User) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bytes[user]
}

func (u *users) add(user quota.User, n int) {
	if n == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bytes == nil {
		u.bytes = make(map[quota.User]int)
	}
	if u.bytes[user] += n; u.bytes[user] == 0 {
		delete(u.bytes, user)
	}
}
