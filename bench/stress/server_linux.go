package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/role"
	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/leftover"
)

// serving is a server process, of several goroutines that each have a place.
type serving struct {
	number    int
	paths     paths
	board     board
	histories [clients]history
	listener  *guise.Listener
	handlers  sync.WaitGroup
	report    report
}

// beServing is the role of a server process.
func beServing(args []string) error {
	go endWithParent()
	number, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	s := &serving{number: number, paths: paths(args[0])}
	w, err := openShared(s.paths.board())
	if err != nil {
		return err
	}
	s.board = board{w}
	go s.board.stalls(number).measure()
	for i := range s.histories {
		if w, err = openShared(s.paths.history(i)); err != nil {
			return err
		}
		s.histories[i] = history{w}
	}
	before := leftover.Descriptors()
	s.listener, err = guise.Listen(s.paths.pipe(number), &guise.ListenConfig{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	var beside sync.WaitGroup
	beside.Add(2)
	go func() { defer beside.Done(); s.collect() }()
	go func() { defer beside.Done(); s.beServer() }()
	s.handlers.Add(1)
	go func() { defer s.handlers.Done(); s.accept() }()
	for s.board.phase() < reporting {
		time.Sleep(5 * time.Millisecond)
	}
	if err := s.listener.Close(); err != nil {
		return err
	}
	s.handlers.Wait()
	beside.Wait()
	s.lookBack(before)
	b, err := json.Marshal(&s.report)
	if err != nil {
		return err
	}
	fmt.Println(string(b))
	role.AwaitEnd()
	return nil
}

// lookBack looks for what is left when nobody is there any more.
func (s *serving) lookBack(before map[string]string) {
	discard.Wait()
	r := &s.report
	r.DescriptorsBefore = len(before)
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		var errs []error
		after := leftover.Descriptors()
		if len(after) > len(before) {
			errs = append(errs, fmt.Errorf("%d descriptors are open, at the start there were %d: %v", len(after), len(before), after))
		}
		r.DescriptorsLeft = len(after)
		err := errors.Join(append(errs, leftover.Threads())...)
		if err == nil {
			return
		}
		if time.Since(begun) > 5*time.Second {
			r.Left = err.Error()
			return
		}
	}
}

// collect keeps the collector running, which stops, starts and interrupts threads.
func (s *serving) collect() {
	for s.board.phase() < reporting {
		runtime.GC()
		time.Sleep(200 * time.Millisecond)
	}
}

// beServer works outside of all scopes and looks that it is the server there.
func (s *serving) beServer() {
	path := filepath.Join(string(s.paths), "files", fmt.Sprint("server", s.number))
	for s.board.phase() < reporting {
		err := func() error {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			return errors.Join(threadIs(server, true), workOnFile(path, server))
		}()
		if err != nil {
			s.fail(fmt.Errorf("outside of scopes: %w", err))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *serving) accept() {
	for {
		c, err := s.listener.AcceptPipe()
		if err != nil {
			return // closed
		}
		s.handlers.Add(1)
		go func() {
			defer s.handlers.Done()
			s.handle(c)
		}()
	}
}

// fail says what broke, and has the run end.
func (s *serving) fail(err error) {
	s.report.mu.Lock()
	defer s.report.mu.Unlock()
	s.report.Errors++
	ended := errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
	if !ended || !s.board.failed() { // else it is what came of another's failure
		s.say(err)
	}
	s.board.fail()
}

// late says what was right, but too late. The run goes on, so that there are figures at its end.
func (s *serving) late(err error) {
	s.report.mu.Lock()
	defer s.report.mu.Unlock()
	if s.report.Late++; s.report.Late <= 2 {
		s.say(err)
	}
}

func (s *serving) say(err error) {
	fmt.Fprintf(os.Stderr, "stress: server process %d: %v\n", s.number, err)
}

// handle is one server goroutine: for each request it enters a scope of the client that it came from.
func (s *serving) handle(c *guise.Conn) {
	defer c.Close()
	var next *guise.Conn // the next of the chain, where one connection is for all scopes
	defer func() {
		if next != nil {
			next.Close()
		}
	}()
	for {
		var r request
		err := r.read(c)
		if err == io.EOF {
			return
		}
		if err == nil && next == nil && r.Hop < r.Hops && keepsNext(r) {
			next, err = s.dialNext(r)
		}
		if err == nil {
			w := &work{serving: s, request: r, place: s.board.place(int(r.Place)), history: s.histories[r.Client], read: now()}
			err = c.RunAsClient(func(scope *guise.Scope) error { return w.inScope(scope, next) })
			w.place.unsettle()
			w.place.alive()
		}
		if err == nil {
			_, err = c.Write(answer)
		}
		if err != nil {
			s.fail(r.wrap(err))
			return
		}
	}
}

// keepsNext reports whether a server of a chain connects to the next for all its scopes, and not in each for that one.
func keepsNext(r request) bool { return r.Client%2 == 1 }

func (s *serving) dialNext(r request) (*guise.Conn, error) {
	return guise.Dial(s.paths.pipe(serverOf(int(r.Place)+1)), &guise.QoS{Tracking: guise.Dynamic})
}
