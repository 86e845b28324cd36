package guise

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// Scope is the stretch in which a goroutine, locked to its thread, wears a token (NT: between ImpersonateNamedPipeClient and
// RevertToSelf). It is for the function that it is given to, until that returns.
type Scope struct {
	token atomic.Pointer[token.Token]
	worn  thread.Worn
	id    uint64 // of this stretch: no other has it in this process
	ended atomic.Bool
	kept  atomic.Bool // something may still refer to it when it has ended

	conn   *Conn  // whose client it is, nil for RunAs
	source uint64 // of the client's, which it follows with dynamic tracking
	took   uint64 // the number of the announcement that it followed last; the server's end's mu guards it
	client follower
	others *others
}

var lastScope atomic.Uint64

// others are the goroutines that a scope started.
type others struct {
	wait sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

// Token returns the context that the scope wears now. With dynamic tracking it is another one after the client's has changed.
func (s *Scope) Token() *token.Token { return s.token.Load() }

// RunAs calls fn on the calling goroutine, with the thread wearing t: what fn does to files, sockets and pipes the kernel
// judges as t's. It returns fn's error, joined with those of the goroutines that fn started with [Scope.Go], for which it
// waits.
//
// The thread is changed whole or not at all, and restored however fn ends, by a panic and [runtime.Goexit] too. Where that
// can't be done the process ends. Scopes nest. See the package comment for what stays the server's in a scope.
//
// An error from RunAs itself is an [*OpError] that wraps [ErrPrivilege], [ErrLevel], [ErrNotWearable] or what the system said;
// fn was not called then.
func RunAs(t *token.Token, fn func(*Scope) error) error {
	s := &Scope{}
	s.begin(t, nil)
	if err := s.enter(); err != nil {
		return opError("impersonate", "", err)
	}
	return s.run("", fn)
}

// RunAsClient is [RunAs] for the client of the connection: its context of the open with static tracking, and with dynamic
// tracking the one that it has now. It allocates nothing.
//
// With dynamic tracking the thread follows the client while fn runs, without fn doing anything: see [Scope.Changed].
//
// Before the client has said anything it fails with [ErrNoDataRead]; it still works when the client has closed. A client's
// end has no client.
func (c *Conn) RunAsClient(fn func(*Scope) error) error {
	if c.server == nil {
		return opError("impersonate", c.pipe, errNotServer)
	}
	_, s, err := c.server.context(c, (*knownClient).takeSpare)
	if err != nil {
		return c.fail("impersonate", err)
	}
	defer c.server.known.putSpare(s)
	if s.worn.Follow {
		defer c.server.leave(s)
	}
	if err := s.enter(); err != nil {
		s.end()
		return opError("impersonate", c.pipe, err)
	}
	c.server.observeScope(WatchEntered, 1)
	defer c.server.observeScope(WatchLeft, -1)
	return s.run(c.pipe, fn)
}

// Wearing returns the context that the calling goroutine's thread wears, nil outside of every scope. The error wraps
// [ErrContextLost] or says what else the scope's client is lost by.
func Wearing() (*token.Token, error) {
	w := thread.Current()
	if w == nil {
		return nil, nil
	}
	if s := scopeOf(w); s != nil {
		if err := s.lostErr(); err != nil {
			return nil, err
		}
	}
	return w.Token(), nil
}

// begin makes a scope ready for t, which is that of conn's client if that is not nil.
func (s *Scope) begin(t *token.Token, conn *Conn) {
	s.id = lastScope.Add(1)
	s.worn.Owner, s.worn.Follow = s, false
	s.conn = conn
	s.token.Store(t)
	s.ended.Store(false)
	s.client.begin(nil)
}

// beginFollowing is begin for a scope that follows a source of conn's client.
func (s *Scope) beginFollowing(t *token.Token, conn *Conn, source uint64, proof *announce.Proof) {
	s.begin(t, conn)
	s.worn.Follow, s.source = true, source
	s.client.begin(proof)
}

// enter puts the token on, as it has become meanwhile.
func (s *Scope) enter() error {
	t := s.token.Load()
	if err := s.worn.Enter(t); err != nil {
		return err
	}
	if s.worn.Follow {
		s.entered(&s.worn, t)
	}
	return nil
}

// run calls fn in the scope that the thread has entered, and leaves it.
func (s *Scope) run(pipe string, fn func(*Scope) error) (err error) {
	defer func() {
		if s.worn.Follow {
			s.leaving(&s.worn)
		}
		leaveErr := s.worn.Leave()
		if s.others == nil && leaveErr == nil {
			s.end()
			return
		}
		err = s.finish(pipe, err, leaveErr)
	}()
	return fn(s)
}

func (s *Scope) end() {
	s.ended.Store(true)
	if s.worn.Follow || s.kept.Load() {
		s.client.end()
	}
}

// finish waits for the goroutines of the scope and joins the errors.
func (s *Scope) finish(pipe string, err, leaveErr error) error {
	var errs []error
	if s.others != nil {
		s.others.wait.Wait()
		errs = s.others.errs
		s.others = nil
	}
	s.end()
	if leaveErr != nil {
		errs = append(errs, opError("impersonate", pipe, leaveErr))
	}
	if len(errs) == 0 {
		return err
	}
	return errors.Join(append([]error{err}, errs...)...)
}

// Go calls fn on a goroutine of its own that is in the same scope. The scope's RunAs waits for it and returns its error. A go
// statement would run fn as the server.
//
// It is for the scope's function and the goroutines it started this way.
func (s *Scope) Go(fn func() error) {
	if s.ended.Load() {
		panic("guise: Scope.Go after the scope has ended")
	}
	s.kept.Store(true)
	s.startOthers().start(s, fn)
}

var othersMu sync.Mutex

func (s *Scope) startOthers() *others {
	othersMu.Lock()
	defer othersMu.Unlock()
	if s.others == nil {
		s.others = new(others)
	}
	return s.others
}

func (o *others) start(s *Scope, fn func() error) {
	o.wait.Add(1)
	go func() {
		defer o.wait.Done()
		worn := &thread.Worn{Owner: s, Follow: s.worn.Follow}
		t := s.token.Load()
		if err := worn.Enter(t); err != nil {
			o.fail(fmt.Errorf("starting a goroutine in a scope: %w", err))
			return
		}
		defer func() {
			s.leaving(worn)
			if err := worn.Leave(); err != nil {
				o.fail(err)
			}
		}()
		s.entered(worn, t)
		if err := fn(); err != nil {
			o.fail(err)
		}
	}()
}

func (o *others) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.errs = append(o.errs, err)
}

// takeSpare returns the scope that the connection's last call used, so that entering allocates nothing, or a new one.
func (k *knownClient) takeSpare() *Scope {
	if s := k.spare.Swap(nil); s != nil {
		return s
	}
	return &Scope{}
}

func (k *knownClient) putSpare(s *Scope) {
	if s.ended.Load() && !s.kept.Load() {
		k.spare.Store(s)
	}
}
