package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/quota"
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
	flags.Var((*countFlag)(&l.perUser), "max-per-user", "serve at most `N` clients of one uid at once; further ones are refused (unstated: as many as leave room for others)")
	flags.DurationVar(&l.timeout, "timeout", 0, "end COMMAND after this `DURATION`, such as 90s or 1h (unstated: no limit)")
	flags.DurationVar(&l.idle, "idle", 0, "end COMMAND when nothing has passed on the pipe for this `DURATION`, such as 5m (unstated: no limit)")
	flags.DurationVar(&l.grace, "grace", defaultGrace, "the `DURATION` that COMMAND has to end after SIGTERM, before SIGKILL")
}

// connections returns the bound of a user's connections, before their commands are started: none if there is one of those, and the default
// if there isn't.
func (l *limits) connections() int {
	if l.perUser > 0 {
		return math.MaxInt
	}
	return 0
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
	fair    *quota.Fair // if perUser is not stated

	mu    sync.Mutex
	count int
	users map[quota.User]int // how many each user has, if that has a limit
}

// mostDivided is how many clients' commands users share, where nothing is stated.
const mostDivided = 1000

func newPlaces(l *limits) *places {
	p := &places{perUser: l.perUser}
	if l.max > 0 {
		p.free = make(chan struct{}, l.max)
	}
	if l.perUser > 0 {
		p.users = make(map[quota.User]int)
	} else {
		p.fair = quota.NewFair(mostDivided)
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
	if n := p.users[quota.Of(uid)]; p.users != nil && n >= p.perUser {
		return fmt.Errorf("uid %d has %s already (--max-per-user)", uid, count(n, "connection"))
	}
	if p.fair != nil && !p.fair.Has(quota.Of(uid)) {
		return fmt.Errorf("uid %d has as many connections as leave room for others (see --max-per-user)", uid)
	}
	return nil
}

// take takes a place, until leave is called. It returns an error if the client's user has too many by now: with --network clients
// are let in ahead of it.
func (p *places) take(conn *guise.Conn) (leave func(), full error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	uid, full := uidOf(conn)
	user := quota.Of(uid)
	if full == nil {
		full = p.hasPlace(uid)
	}
	counted := full == nil && (p.fair == nil || p.fair.Take(user, 1))
	if counted && p.users != nil {
		p.users[user]++
	}
	return func() {
		p.mu.Lock()
		p.count--
		if counted && p.users != nil {
			if p.users[user]--; p.users[user] == 0 {
				delete(p.users, user)
			}
		}
		if counted && p.fair != nil {
			p.fair.Give(user, 1)
		}
		p.mu.Unlock()
		if p.free != nil {
			<-p.free
		}
	}, full
}

// uidOf returns who opened the pipe, without receiving anything from the client: who accepts can't wait for it.
func uidOf(conn *guise.Conn) (uint32, error) {
	if _, here := conn.RemoteAddr().(*net.UnixAddr); !here { // Samba has told of it before it was accepted
		peer, err := conn.Peer()
		if err != nil {
			return 0, err
		}
		return peer.UID(), nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(controlErr, err); err != nil {
		return 0, fmt.Errorf("asking for the client's uid (SO_PEERCRED): %w", err)
	}
	return peer.Uid, nil
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
