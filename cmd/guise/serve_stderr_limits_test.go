package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLinesAreCut(t *testing.T) {
	long := strings.Repeat("x", longestLine)
	for name, c := range map[string]struct{ written, want []string }{
		"nothing":            {nil, nil},
		"one":                {[]string{"a\n"}, []string{"a+0"}},
		"several":            {[]string{"a\n\nb\n"}, []string{"a+0", "+0", "b+0"}},
		"in pieces":          {[]string{"a", "b", "\nc", "\n"}, []string{"ab+0", "c+0"}},
		"no newline":         {[]string{"a\nb"}, []string{"a+0", "b+0"}},
		"as long as can be":  {[]string{long, "\nb\n"}, []string{long + "+0", "b+0"}},
		"too long":           {[]string{long + "yz", "\nb\n"}, []string{long + "+2", "b+0"}},
		"too long in pieces": {[]string{long[1:], "yz", "zz\n", "b\n"}, []string{long[1:] + "y+3", "b+0"}},
		"too long, no end":   {[]string{long, "y"}, []string{long + "+1"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			finished := func(l *unfinishedLine) { got = append(got, fmt.Sprintf("%s+%d", l.text, l.cut)) }
			var l unfinishedLine
			for _, w := range c.written {
				l.add([]byte(w), finished)
			}
			l.end(finished)
			if !slices.Equal(got, c.want) {
				t.Errorf("the lines are %.100q, want %.100q", got, c.want)
			}
		})
	}
}

func TestLineBudget(t *testing.T) {
	now := time.Unix(1e9, 0)
	takeAll := func(b *lineBudget) (n int) {
		for b.line(now) {
			n++
		}
		return n
	}
	b := newLineBudget(now)
	if n := takeAll(b); n != linesAtOnce {
		t.Errorf("a new budget has %d lines, want %d", n, linesAtOnce)
	}
	now = now.Add(2 * time.Second)
	if n := takeAll(b); n != 0 {
		t.Errorf("%d lines more, while the log has not taken the first %d", n, linesAtOnce)
	}
	for range linesAtOnce {
		b.logged()
	}
	if n := takeAll(b); n != 2*linesPerSecond {
		t.Errorf("%d lines after two seconds, want %d", n, 2*linesPerSecond)
	}
	if wait := b.read(bytesAtOnce, now); wait != 0 {
		t.Errorf("the first bytes wait for %v", wait)
	}
	for _, want := range []time.Duration{time.Second, 2 * time.Second} { // of two commands
		if wait := b.read(bytesPerSecond, now); wait != want {
			t.Errorf("more bytes wait for %v, want %v", wait, want)
		}
	}
}

// A user has no more by connecting again. That of those who have gone is forgotten in the end.
func TestLineBudgetsOfUsers(t *testing.T) {
	var l lineBudgets
	now := time.Now()
	a, b := l.take(alice), l.take(bob)
	if a == b || l.take(alice) != a {
		t.Error("each user has to have one budget")
	}
	a.line(now)
	l.leave(a, now)
	l.leave(a, now)
	if l.take(alice) != a {
		t.Error("what a user has spent is forgotten when the command has ended")
	}
	l.leave(a, now)
	a.logged()
	l.leave(b, now.Add(time.Minute))
	if len(l.users) != 0 {
		t.Errorf("%d users are remembered a minute after all have gone", len(l.users))
	}
}

// logged is a log that commandErrors write to.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) log(_ slog.Level, message string, attributes ...slog.Attr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprint(message, attributes))
}

// Of a command that writes too much the first lines are logged, and the last, and how much it was.
func TestLinesAreLeftOut(t *testing.T) {
	var l logged
	e, file, err := newCommandErrors(newLineBudget(time.Now()), l.log)
	if err != nil {
		t.Fatal(err)
	}
	const written = linesAtOnce + 1000 // the budget fills meanwhile, by fewer than that on any machine that passes other tests
	for i := range written {
		fmt.Fprintf(file, "%08d\n", i)
	}
	file.Close()
	e.end()
	n := len(l.lines)
	if n < linesAtOnce+lastLines+1 {
		t.Fatalf("%d lines were logged, want at least %d, and the last %d: %q", n, linesAtOnce, lastLines, l.lines)
	}
	for i, want := range []string{"00000000", "00000001"} {
		if l.lines[i] != "command's standard error[line="+want+"]" {
			t.Errorf("line %d of the log is %q, want %s", i, l.lines[i], want)
		}
	}
	for i, line := range l.lines[n-lastLines:] {
		if want := fmt.Sprintf("command's standard error[line=%08d]", written-lastLines+i); line != want {
			t.Errorf("among the last lines is %q, want %q", line, want)
		}
	}
	whole, lines, bytes := 0, 0, 0
	for _, line := range l.lines {
		var left, of int
		if got, _ := fmt.Sscanf(line, "command's standard error left out[lines=%d bytes=%d]", &left, &of); got == 2 {
			lines, bytes = lines+left, bytes+of
		} else {
			whole++
		}
	}
	if lines == 0 || whole+lines != written || bytes != 8*lines {
		t.Errorf("%d lines were logged, and %d of %d bytes are said to be left out, of %d lines of 8 bytes", whole, lines, bytes, written)
	}
}

// What is in the pipe when the command has ended is taken in, whoever still has it.
func TestLastWordsAreLogged(t *testing.T) {
	var l logged
	e, file, err := newCommandErrors(newLineBudget(time.Now()), l.log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// The reader ends before it has seen them.
	if err := e.from.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	<-e.read
	if _, err := file.WriteString("last words\nand no end"); err != nil {
		t.Fatal(err)
	}
	e.end()
	if want := []string{"command's standard error[line=last words]", "command's standard error[line=and no end]"}; !slices.Equal(l.lines, want) {
		t.Errorf("the log has %q, want %q", l.lines, want)
	}
	if _, err := file.WriteString("nobody reads"); !errors.Is(err, unix.EPIPE) {
		t.Errorf("a program that was left behind writes: %v, want EPIPE", err)
	}
}

// A client can make the pipe so large that reading all of it would take long.
func TestRestOfALargePipeIsLeftOut(t *testing.T) {
	var l logged
	e, file, err := newCommandErrors(newLineBudget(time.Now()), l.log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := e.from.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	<-e.read
	const size = 4 * mostRest
	if _, err := unix.FcntlInt(file.Fd(), unix.F_SETPIPE_SZ, size); err != nil {
		t.Skipf("the pipe can't be made larger: %v", err)
	}
	if _, err := file.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	e.end()
	said := strings.Join(l.lines, " ")
	for _, want := range []string{fmt.Sprintf(" cut=%d]", mostRest-longestLine), fmt.Sprintf(" left out[lines=0 bytes=%d]", size-mostRest)} {
		if !strings.Contains(said, want) {
			t.Errorf("the log has not %q in it: %.100q… %.200s", want, said, said[max(0, len(said)-200):])
		}
	}
}

// A user who has spent all for hours holds up no end of a command.
func TestEndWaitsForNoBudget(t *testing.T) {
	budget := newLineBudget(time.Now())
	budget.read(1<<40, time.Now())
	var l logged
	e, file, err := newCommandErrors(budget, l.log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("held up\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the line is logged", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.lines) == 1
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.end()
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the end of a command waits until its user may write again")
	}
}
