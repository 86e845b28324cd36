package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// who is an identity as this run has them: one group is enough to tell whose the groups are.
type who struct{ uid, gid, group uint32 }

func (w who) String() string { return fmt.Sprintf("uid %d gid %d group %d", w.uid, w.gid, w.group) }

// history is what a client has been, in memory shared with the servers: for each of its states when the system calls that made it
// so began and ended. Changing takes several calls, and each makes a state of its own. One goroutine of the client writes.
type history struct{ w words }

const (
	historyHeader = 8
	historyHead   = 0 // how many states have begun
	historyStop   = 1 // when the last had come that there will be, 0 before
	historyState  = 4 // words of a state: when its calls began, when they had ended (0 before), uid and gid, group
)

func historyLength(states int) int { return historyHeader + states*historyState }

func (h history) size() uint64 { return uint64(len(h.w)-historyHeader) / historyState }

func (h history) at(n uint64) words {
	from := historyHeader + n%h.size()*historyState
	return h.w[from : from+historyState]
}

// become notes a state, and calls change to make it so.
func (h history) become(w who, change func() error) error {
	n := h.w[historyHead].Load()
	s := h.at(n)
	s[1].Store(0)
	s[2].Store(uint64(w.uid)<<32 | uint64(w.gid))
	s[3].Store(uint64(w.group))
	s[0].Store(uint64(now()))
	h.w[historyHead].Store(n + 1)
	if err := change(); err != nil {
		return fmt.Errorf("becoming %v: %w", w, err)
	}
	s[1].Store(uint64(now()))
	return nil
}

func (h history) began(n uint64) int64 { return int64(h.at(n)[0].Load()) }
func (h history) ended(n uint64) int64 { return int64(h.at(n)[1].Load()) }

// last returns the number of the state that began last. It is for who writes the history, or after stop.
func (h history) last() uint64 { return h.w[historyHead].Load() - 1 }

// reached returns the number of the last state that the client is known to have reached.
func (h history) reached() uint64 {
	n := h.last()
	if h.ended(n) == 0 {
		n--
	}
	return n
}

func (h history) state(n uint64) who {
	s := h.at(n)
	ids := s[2].Load()
	return who{uint32(ids >> 32), uint32(ids), uint32(s[3].Load())}
}

func (h history) stop()            { h.w[historyStop].Store(uint64(now())) }
func (h history) stoppedAt() int64 { return int64(h.w[historyStop].Load()) }

// span is what of a history an operation may show.
type span struct {
	from, to    int64  // the client had it at some moment between
	first, last uint64 // and these are the states to look at
}

// newest is a last state that leaves it open.
const newest = math.MaxUint64

// found is what find found.
type found struct {
	ok    bool
	state uint64
	over  int64 // when the next state had come, 0 if it has not
	lost  bool  // the history does not go back far enough to tell
}

// find looks, from the newest on, for a state of the span that matches.
func (h history) find(s span, matches func(n uint64, w who) bool) found {
	head := h.w[historyHead].Load()
	for next := head; next > s.first; next-- {
		n := next - 1
		began, w := h.began(n), h.state(n)
		var over int64
		if next < head {
			over = h.ended(next)
		}
		if h.w[historyHead].Load()-n >= h.size()-2 { // written over, or about to be
			return found{lost: true}
		}
		if began > s.to || n > s.last {
			continue
		}
		if over != 0 && over < s.from {
			break
		}
		if matches(n, w) {
			return found{ok: true, state: n, over: over}
		}
	}
	return found{}
}

// tell lists the newest states of a span, with what came between them and its end, and some that came before.
func (h history) tell(s span) string {
	const most = 10
	var b strings.Builder
	told := 0
	s.from -= int64(50 * time.Millisecond)
	s.first -= min(s.first, 6)
	ms := func(t int64) float64 { return float64(t-s.to) / 1e6 }
	h.find(s, func(n uint64, w who) bool {
		fmt.Fprintf(&b, "\n      state %d: %v, its calls from %+.3f ms to ", n, w, ms(h.began(n)))
		if ended := h.ended(n); ended != 0 {
			fmt.Fprintf(&b, "%+.3f ms", ms(ended))
		} else {
			b.WriteString("now")
		}
		told++
		return told == most
	})
	return b.String()
}
