package main

import (
	"sync"
	"time"

	"github.com/guise-project/guise/internal/quota"
)

// What of the commands' standard error is logged. The lines of one user's commands share what there is, so that starting more of
// them brings no more. What is written beyond it is left out, and the log says how much.
const (
	longestLine    = 1024  // bytes; the rest of a line is cut off
	mostLines      = 10000 // of one command
	linesAtOnce    = 500   // of one user
	linesPerSecond = 50
	lastLines      = 4 // of a command whose lines were left out: why it failed is there
)

// How much is read of one user's commands. One that writes more has to wait.
const (
	bytesAtOnce    = 1 << 20
	bytesPerSecond = 1 << 20
	mostRest       = 256 << 10 // when a command has ended
)

// bucket holds what may be taken. It fills again as time goes by.
type bucket struct {
	level, size, perSecond float64
	filled                 time.Time
}

// fill brings the level to that of now.
func (b *bucket) fill(now time.Time) {
	b.level = min(b.size, b.level+now.Sub(b.filled).Seconds()*b.perSecond)
	b.filled = now
}

// lineBudget is what a user's commands may write to standard error.
type lineBudget struct {
	mu       sync.Mutex
	lines    bucket
	bytes    bucket // below zero while somebody waits
	waiting  int    // lines that the log has not taken yet
	commands int    // that run, under the mutex of lineBudgets
}

func newLineBudget(now time.Time) *lineBudget {
	return &lineBudget{
		lines: bucket{linesAtOnce, linesAtOnce, linesPerSecond, now},
		bytes: bucket{bytesAtOnce, bytesAtOnce, bytesPerSecond, now},
	}
}

// line takes a line, and reports false if there is none left. It is written until logged is called.
func (b *lineBudget) line(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines.fill(now)
	if b.lines.level < 1 || b.waiting >= linesAtOnce {
		return false
	}
	b.lines.level--
	b.waiting++
	return true
}

func (b *lineBudget) logged() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting--
}

// read takes n bytes, and returns how long to wait until there are more.
func (b *lineBudget) read(n int, now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes.fill(now)
	b.bytes.level -= float64(n)
	return time.Duration(max(0, -b.bytes.level) / b.bytes.perSecond * float64(time.Second))
}

// full reports whether it is as a new one is.
func (b *lineBudget) full(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines.fill(now)
	b.bytes.fill(now)
	return b.lines.level == b.lines.size && b.bytes.level == b.bytes.size && b.waiting == 0
}

// lineBudgets are those of all users. The zero value has none yet.
type lineBudgets struct {
	mu    sync.Mutex
	users map[quota.User]*lineBudget
	swept time.Time
}

// take returns the budget of uid for one command more, until leave is called with it.
func (l *lineBudgets) take(uid uint32) *lineBudget {
	user := quota.Of(uid)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.users[user]
	if b == nil {
		b = newLineBudget(time.Now())
		if l.users == nil {
			l.users = make(map[quota.User]*lineBudget)
		}
		l.users[user] = b
	}
	b.commands++
	return b
}

// leave is called when a command has ended. What its user has spent stays so.
func (l *lineBudgets) leave(left *lineBudget, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left.commands--
	if now.Sub(l.swept) < linesAtOnce/linesPerSecond*time.Second { // so long it takes to be full
		return
	}
	l.swept = now
	for user, b := range l.users {
		if b.commands == 0 && b.full(now) {
			delete(l.users, user)
		}
	}
}
