package main

import (
	"fmt"
	"iter"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
)

// redrawEvery is the time between two drawings at least: many events must not take more of a terminal than it can show.
const redrawEvery = 100 * time.Millisecond

const (
	// The table has a screen of its own, without a cursor, and long lines are cut off.
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	restOfLine  = "\x1b[K"
	restBelow   = "\x1b[J"
)

// screen is a terminal that the table is shown on.
type screen struct {
	in, out *os.File
	was     *unix.Termios // of in, nil if that is no terminal
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// enter makes the terminal the table's.
func (s *screen) enter() error {
	if was, err := unix.IoctlGetTermios(int(s.in.Fd()), unix.TCGETS); err == nil {
		s.was = was
		quiet := *was
		quiet.Lflag &^= unix.ECHO | unix.ICANON // keys come one by one; signals by key stay
		quiet.Cc[unix.VMIN], quiet.Cc[unix.VTIME] = 1, 0
		if err := unix.IoctlSetTermios(int(s.in.Fd()), unix.TCSETS, &quiet); err != nil {
			return fmt.Errorf("setting the terminal up: %w", err)
		}
	}
	_, err := s.out.WriteString(enterScreen)
	return err
}

// leave makes the terminal what it was.
func (s *screen) leave() {
	s.out.WriteString(leaveScreen)
	if s.was != nil {
		// Keys that were pressed meanwhile are not for the shell.
		unix.IoctlSetTermios(int(s.in.Fd()), unix.TCSETSF, s.was)
	}
}

// size returns the terminal's size, a usual one if it does not say.
func (s *screen) size() (width, height int) {
	size, err := unix.IoctlGetWinsize(int(s.out.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 || size.Row == 0 {
		return 80, 24
	}
	return int(size.Col), int(size.Row)
}

// draw shows the table in the place of what was there, in one write.
func (s *screen) draw(t *watchTable) error {
	var b strings.Builder
	b.WriteString(home)
	for i, line := range t.lines(s.size()) {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + restOfLine)
	}
	b.WriteString(restBelow)
	_, err := s.out.WriteString(b.String())
	return err
}

// suspend does what Ctrl-Z asks for, with the terminal as it was meanwhile.
func (s *screen) suspend() error {
	s.leave()
	unix.Kill(0, unix.SIGSTOP) // the whole job, as the terminal would
	return s.enter()
}

// nextEvent is what an iterator yields.
type nextEvent struct {
	event *guise.WatchEvent
	err   error
}

// watchTerminal shows a table until the events end. stop ends them.
func watchTerminal(events iter.Seq2[*guise.WatchEvent, error], stop func(), in, out *os.File) error {
	next := make(chan nextEvent)
	go func() {
		defer close(next)
		for e, err := range events {
			next <- nextEvent{e, err}
		}
	}()
	// What goes wrong at once is told without a table.
	first := <-next
	if first.err != nil {
		return first.err
	}
	s := &screen{in: in, out: out}
	if err := s.enter(); err != nil {
		return err
	}
	ended, err := s.show(first.event, next, stop)
	s.leave()
	for range next { // until the connection is closed
	}
	if ended != nil {
		fmt.Fprintln(os.Stderr, "guise watch: "+endedText(ended)+".")
	}
	return err
}

// show returns the event that ended it, if one has.
func (s *screen) show(first *guise.WatchEvent, next <-chan nextEvent, stop func()) (*guise.WatchEvent, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGWINCH, unix.SIGTSTP)
	defer signal.Stop(signals)
	if s.was != nil {
		go s.waitQuit(stop)
	}
	t := &watchTable{}
	t.take(first)
	redraw := time.NewTimer(0)
	defer redraw.Stop()
	waiting := true // for the timer
	var drawn time.Time
	for {
		select {
		case n, more := <-next:
			switch {
			case !more:
				return nil, nil
			case n.err != nil:
				return nil, n.err
			case n.event.Kind == guise.WatchEnded:
				return n.event, nil
			}
			t.take(n.event)
			if !waiting {
				redraw.Reset(time.Until(drawn.Add(redrawEvery)))
				waiting = true
			}
		case what := <-signals:
			if what == unix.SIGTSTP {
				if err := s.suspend(); err != nil {
					stop()
					return nil, err
				}
			}
			redraw.Reset(0)
			waiting = true
		case <-redraw.C:
			waiting = false
			drawn = time.Now()
			if err := s.draw(t); err != nil {
				stop()
				return nil, fmt.Errorf("writing to the terminal: %w", err)
			}
		}
	}
}

// waitQuit waits for the key that ends the watch.
func (s *screen) waitQuit(stop func()) {
	key := make([]byte, 1)
	for {
		if n, err := s.in.Read(key); err != nil || n == 0 {
			return
		}
		if key[0] == 'q' {
			stop()
			return
		}
	}
}
