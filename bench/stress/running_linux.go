package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/role"
)

// running is a run of the test.
type running struct {
	dir    string
	who    []*identity
	scopes int64

	started, entered                           atomic.Int64
	clientFiles, serverFiles                   atomic.Int64
	nested, goroutines, ofConnections, unwound atomic.Int64

	mu   sync.Mutex
	errs []error
}

// enough is how many errors end the run.
const enough = 10

func (r *running) fail(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errs) < enough {
		r.errs = append(r.errs, err)
	}
}

func (r *running) firstErrors() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.errs
}

func (r *running) run(ctx context.Context) {
	ctx, done := context.WithCancel(ctx)
	var churn, work sync.WaitGroup
	for n := range 2 {
		churn.Add(1)
		go func() { defer churn.Done(); r.beServer(ctx, n) }()
	}
	churn.Add(1)
	go func() { defer churn.Done(); collect(ctx) }()
	for n := range workers {
		work.Add(1)
		go func() { defer work.Done(); r.work(ctx, n) }()
	}
	work.Wait()
	done()
	churn.Wait()
}

// collect keeps the collector running, which stops, starts and interrupts threads.
func collect(ctx context.Context) {
	for ctx.Err() == nil {
		runtime.GC()
		time.Sleep(5 * time.Millisecond)
	}
}

// beServer does what the scopes do, outside of all of them.
func (r *running) beServer(ctx context.Context, n int) {
	for i := 0; ctx.Err() == nil; i++ {
		r.fail(r.actAsServer(fmt.Sprintf("server%d-%d", n, i)))
		time.Sleep(200 * time.Microsecond)
	}
}

// work enters scopes until there are enough.
func (r *running) work(ctx context.Context, worker int) {
	for ctx.Err() == nil && len(r.firstErrors()) < enough {
		n := r.started.Add(1)
		if n > r.scopes {
			return
		}
		i := r.who[(int(n)*7+worker)%len(r.who)]
		name := fmt.Sprintf("w%d-%d", worker, n)
		switch {
		case n%512 == 0:
			r.fail(r.unwind(i, name))
		default:
			r.fail(r.act(i, name, n))
		}
		r.entered.Add(1)
		if n%64 == 1 {
			// The thread that was somebody else's a moment ago.
			r.fail(r.actAsServer(name + "-after"))
		}
	}
}

// enter calls fn in a scope of i's, that of its connection if it has one.
func (r *running) enter(i *identity, fn func(*guise.Scope) error) error {
	if i.client != nil {
		r.ofConnections.Add(1)
		return i.client.RunAsClient(fn)
	}
	return guise.RunAs(i.token, fn)
}

// act is the common scope: it works as i, and now and then in a scope inside, in goroutines of the scope, or beside it.
func (r *running) act(i *identity, name string, n int64) error {
	beside := make(chan error, 1)
	besides := n%32 == 3
	err := r.enter(i, func(s *guise.Scope) error {
		if besides {
			// What docs/security.md warns of: it runs as the server.
			go func() { beside <- r.actAsServer(name + "-beside") }() //guise:scope-ok it is to run as the server
		}
		if n%8 == 0 {
			runtime.Gosched() // so that many threads wear something at once
		}
		if err := r.actAs(i, name); err != nil {
			return err
		}
		if n%64 == 5 {
			r.goroutines.Add(1)
			s.Go(func() error { return r.actAs(i, name+"-go") })
		}
		if n%64 == 9 {
			inner := r.who[(int(n)*13+1)%len(r.who)]
			r.nested.Add(1)
			if err := r.enter(inner, func(*guise.Scope) error { return r.actAs(inner, name+"-inner") }); err != nil {
				return err
			}
			return r.actAs(i, name+"-again")
		}
		return nil
	})
	if besides && err == nil {
		err = <-beside
	}
	return err
}

var errUnwound = errors.New("unwound")

// unwind leaves a scope by a panic, or with its goroutine by Goexit, and looks who the thread is then.
func (r *running) unwind(i *identity, name string) error {
	r.unwound.Add(2)
	err := func() (err error) {
		defer func() {
			if recover() != errUnwound {
				err = errors.New("a panic did not come out of its scope")
			}
		}()
		return r.enter(i, func(*guise.Scope) error { panic(errUnwound) })
	}()
	if err == nil {
		err = r.actAsServer(name + "-panicked")
	}
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		var err error
		defer func() { result <- errors.Join(err, r.actAsServer(name+"-exited")) }()
		r.enter(i, func(*guise.Scope) error {
			err = r.actAs(i, name)
			runtime.Goexit()
			return nil
		})
		err = errors.New("the goroutine of a scope did not end by Goexit")
	}()
	return <-result
}

// actAs works on a file as i.
func (r *running) actAs(i *identity, name string) error {
	r.clientFiles.Add(1)
	if err := threadIs(i.ids, false); err != nil {
		return fmt.Errorf("in a scope of %s: %w", i.token, err)
	}
	if err := workOnFile(filepath.Join(r.dir, name), i.ids); err != nil {
		return fmt.Errorf("in a scope of %s: %w", i.token, err)
	}
	return nil
}

// server is who this process is.
var server = role.IDs{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Groups: ownGroups()}

func ownGroups() []uint32 {
	var groups []uint32
	own, err := unix.Getgroups()
	if err != nil {
		panic(err)
	}
	for _, g := range own {
		groups = append(groups, uint32(g))
	}
	return groups
}

// actAsServer works on a file as the server itself.
func (r *running) actAsServer(name string) error {
	r.serverFiles.Add(1)
	runtime.LockOSThread() // one thread to ask, whoever else wants to run
	defer runtime.UnlockOSThread()
	if err := threadIs(server, true); err != nil {
		return fmt.Errorf("outside of scopes: %w", err)
	}
	if err := workOnFile(filepath.Join(r.dir, name), server); err != nil {
		return fmt.Errorf("outside of scopes: %w", err)
	}
	return nil
}
