package guise

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/token"
)

// TestAcceptWaitsForNoLogger: who is not let in is told so, and others are accepted, while the log takes nothing.
func TestAcceptWaitsForNoLogger(t *testing.T) {
	needRoot(t, "the clients have ids of their own")
	h := stuckHandler{make(chan struct{})}
	l := listenAt(t, &ListenConfig{Logger: slog.New(h), Allow: func(client *token.Token) error {
		if client.UID() == 61001 {
			return errors.New("not you")
		}
		return nil
	}})
	defer close(h.release)
	for range 3 * mostTellingOne {
		asUID(61001, func() { dialRaw(t, l) })
	}
	asUID(61002, func() { dialRaw(t, l).write("x") })
	server := acceptFrom(t, l)
	if uid := peerUID(t, server); uid != 61002 {
		t.Errorf("a client of uid %d was let in", uid)
	}
	inTime(t, "Close", func() { server.Close() })
}

// countingHandler counts lines, and those of a uid.
type countingHandler struct {
	mu    sync.Mutex
	lines []string
	text  slog.Handler
	buf   *bytes.Buffer
}

func newCountingHandler() *countingHandler {
	var b bytes.Buffer
	return &countingHandler{text: slog.NewTextHandler(&b, nil), buf: &b}
}

func (h *countingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *countingHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf.Reset()
	err := h.text.Handle(ctx, r)
	h.lines = append(h.lines, h.buf.String())
	return err
}
func (h *countingHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *countingHandler) WithGroup(string) slog.Handler      { return h }

// with returns the lines that have text in them.
func (h *countingHandler) with(text string) (found []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, line := range h.lines {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// TestClientWithManyGroupsHasAShortLineInTheLog, and short texts of errors: a user can have 65,536 groups (setgroups(2) in a user namespace
// with the usual subordinate gids).
func TestClientWithManyGroupsHasAShortLineInTheLog(t *testing.T) {
	needRoot(t, "the client has groups of its own")
	h := newCountingHandler()
	l := listenAt(t, &ListenConfig{Logger: slog.New(h), Allow: func(client *token.Token) error {
		if len(client.Groups()) > 1000 {
			return errors.New("not you")
		}
		return nil
	}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good
		groups := make([]uint32, 1<<16)
		for i := range groups {
			groups[i] = uint32(100000 + i)
		}
		_, _, e := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
		if e != 0 {
			t.Error(e)
			return
		}
		for range 4 {
			dialRaw(t, l)
		}
	}()
	<-done
	asUID(61002, func() { dialRaw(t, l).write("x") })
	if uid := peerUID(t, acceptFrom(t, l)); uid != 61002 {
		t.Errorf("a client of uid %d was let in", uid)
	}
	eventuallyIs(t, "lines of the log about clients that are not let in", 4, func() int { return len(h.with("not let in")) })
	for _, line := range h.with("not let in") {
		if len(line) > 2000 || !strings.Contains(line, " and 65520 more") {
			t.Errorf("a line of %d bytes: %.300s…", len(line), line)
		}
	}
	many, err := token.FromIDs(61001, 61001, make([]uint32, 1<<16))
	if err == nil {
		err = RunAs(many.Restrict(token.Statement{Level: Identification}), func(*Scope) error { return nil })
	}
	if text := err.Error(); len(text) > 1000 {
		t.Errorf("an error of %d bytes: %.300s…", len(text), text)
	}
}

// eventuallyIs waits until f returns want.
func eventuallyIs(t *testing.T, what string, want int, f func() int) {
	t.Helper()
	inTime(t, what, func() {
		for f() != want {
			runtime.Gosched()
		}
	})
}

// TestLogSaysHowManyLinesOfAUserItLeavesOut, and has all of another user's.
func TestLogSaysHowManyLinesOfAUserItLeavesOut(t *testing.T) {
	var told output
	release := make(chan struct{})
	l := newListener(&ListenConfig{Logger: slog.New(&waitingHandler{release, slog.NewTextHandler(&told, nil)})})
	for range mostTellingOne + 7 {
		l.log(slog.LevelWarn, 61001, "of one")
	}
	for range 3 {
		l.log(slog.LevelWarn, 61002, "of another")
	}
	close(release)
	lines := func(text string) int { return strings.Count(told.String(), text) }
	eventuallyIs(t, "lines of the user who fills the log", mostTellingOne, func() int { return lines("of one") })
	eventuallyIs(t, "lines of the other user", 3, func() int { return lines("of another") })
	eventuallyIs(t, "lines that are being told", 0, func() int {
		free := 0
		for range mostTellingOne {
			if l.clientLog.telling.Take(61001) {
				free++
			}
		}
		for range free {
			l.clientLog.telling.Give(61001)
		}
		return mostTellingOne - free
	})
	l.log(slog.LevelWarn, 61001, "of one, later")
	eventuallyIs(t, "the line that says how many were left out", 1, func() int { return lines("leftOut=7") })
}

// waitingHandler tells nothing before it is released.
type waitingHandler struct {
	release chan struct{}
	slog.Handler
}

func (h *waitingHandler) Handle(ctx context.Context, r slog.Record) error {
	<-h.release
	return h.Handler.Handle(ctx, r)
}
