package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// limits bound how many clients there are, and how long.
type limits struct {
	max, perUser         int
	timeout, idle, grace time.Duration // 0: no limit; of grace: none
}

const defaultGrace = 5 * time.Second

func (l *limits) add(flags *pflag.FlagSet) {
	flags.Var((*countFlag)(&l.max), "max", "serve at most `N` clients at once; further ones wait (unstated: no limit)")
	flags.Var((*countFlag)(&l.perUser), "max-per-user", "serve at most `N` clients of one uid at once; further ones are refused (unstated: no limit)")
	flags.DurationVar(&l.timeout, "timeout", 0, "end COMMAND after this `DURATION`, such as 90s or 1h (unstated: no limit)")
	flags.DurationVar(&l.idle, "idle", 0, "end COMMAND when nothing has passed on the pipe for this `DURATION`, such as 5m (unstated: no limit)")
	flags.DurationVar(&l.grace, "grace", defaultGrace, "the `DURATION` that COMMAND has to end after SIGTERM, before SIGKILL")
}

// countFlag is a flag's number of clients; 0 is unstated.
type countFlag int

func (f *countFlag) String() string { return strconv.Itoa(int(*f)) }
func (f *countFlag) Type() string   { return "N" }

func (f *countFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil {
		return fmt.Errorf("%q is no number of clients, such as 50", s)
	}
	*f = countFlag(n)
	return nil
}

// check returns an error for values that make no sense.
func (l *limits) check(flags *pflag.FlagSet) error {
	var errs []error
	for name, n := range map[string]int{"max": l.max, "max-per-user": l.perUser} {
		if n < 0 || n == 0 && flags.Changed(name) {
			errs = append(errs, fmt.Errorf("--%s %d would serve nobody; leave it out for no limit", name, n))
		}
	}
	for name, d := range map[string]time.Duration{"timeout": l.timeout, "idle": l.idle, "grace": l.grace} {
		if d < 0 || d == 0 && name != "grace" && flags.Changed(name) {
			errs = append(errs, fmt.Errorf("--%s %v leaves no time; give one such as 30s or 5m, or leave it out", name, d))
		}
	}
	return errors.Join(errs...)
}

// places are those of the clients that are served at once.
type places struct {
	free    chan struct{} // has room for as many as there may be, nil if there may be any number
	perUser int

	mu    sync.Mutex
	count int
	users map[uint32]int // how many each uid has, if that has a limit
}

func newPlaces(l *limits) *places {
	p := &places{perUser: l.perUser}
	if l.max > 0 {
		p.free = make(chan struct{}, l.max)
	}
	if l.perUser > 0 {
		p.users = make(map[uint32]int)
	}
	return p
}

// wait waits until there is a place for one more, which the next take takes. It reports false once ctx has ended.
func (p *places) wait(ctx context.Context) bool {
	if p.free == nil {
		return ctx.Err() == nil
	}
	select {
	case p.free <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// allow returns an error if the client's user has too many places already. A client that is turned away as it connects is told so.
func (p *places) allow(client *token.Token) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hasPlace(client.UID())
}

// hasPlace is allow with mu held.
func (p *places) hasPlace(uid uint32) error {
	if n := p.users[uid]; p.users != nil && n >= p.perUser {
		return fmt.Errorf("uid %d has %s already (--max-per-user)", uid, count(n, "connection"))
	}
	return nil
}

// take takes a place, until leave is called. It returns an error if the client's user has too many by now: with --network clients
// are let in ahead of it.
func (p *places) take(conn *guise.Conn) (leave func(), full error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	uid, counted := uint32(0), false
	if p.users != nil {
		var peer *token.Token
		if peer, full = conn.Peer(); full == nil {
			uid = peer.UID()
			full = p.hasPlace(uid)
		}
		if counted = full == nil; counted {
			p.users[uid]++
		}
	}
	return func() {
		p.mu.Lock()
		p.count--
		if counted {
			if p.users[uid]--; p.users[uid] == 0 {
				delete(p.users, uid)
			}
		}
		p.mu.Unlock()
		if p.free != nil {
			<-p.free
		}
	}, full
}

// String says how many places are taken.
func (p *places) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := count(p.count, "client")
	if p.free != nil {
		text += fmt.Sprintf(" of at most %d", cap(p.free))
	}
	return text
}
