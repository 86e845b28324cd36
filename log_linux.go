package guise

import (
	"context"
	"log/slog"
	"sync"

	"github.com/guise-project/guise/internal/quota"
)

// clientLog tells a listener's logger of its clients. Nobody waits for the logger, nor for what it looks up or formats: each line is
// told on a goroutine of its own. What one user does fills only that user's part of it.
type clientLog struct {
	telling quota.Shares[quota.User]
	rate    quota.Rate

	mu     sync.Mutex
	missed map[quota.User]int
}

const (
	mostTelling    = 1024 // lines that are being told at once
	mostTellingOne = 16   // of one user
	linesAtOnce    = 200  // of one user
	linesPerSecond = 10
)

// log tells the logger of something about a client of uid. Where as many lines about that user are being told as may be, it is left
// out, and the next one says how many were.
func (l *Listener) log(level slog.Level, uid uint32, msg string, args ...any) {
	user := quota.Of(uid)
	c := &l.clientLog
	if !c.rate.Take(user) || !c.telling.Take(user) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.missed == nil {
			c.missed = make(map[quota.User]int)
		}
		if _, known := c.missed[user]; known || len(c.missed) < mostTelling {
			c.missed[user]++
		}
		return
	}
	c.mu.Lock()
	missed := c.missed[user]
	delete(c.missed, user)
	c.mu.Unlock()
	go func() {
		defer c.telling.Give(user)
		args = append(args, "pipe", l.pipe)
		if missed > 0 {
			args = append(args, "leftOut", missed)
		}
		l.config.Logger.Log(context.Background(), level, msg, args...)
	}()
}
