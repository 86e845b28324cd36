package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/role"
	"github.com/guise-project/guise/token"
)

// client is a process that becomes one identity after another, notes each in its history, and all the time has its servers work.
type client struct {
	number  int
	part    part
	paths   paths
	board   board
	history history
	nth     uint32 // of its identities: which it is
	links   []*link
}

// link is a connection of a client's, and what has been asked on it.
type link struct {
	conn    *guise.Conn
	place   int
	waits   bool
	answers chan error
}

// beClient is the role of a client.
func beClient(args []string) error {
	go endWithParent()
	number, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	c := &client{number: number, part: partOf(number), paths: paths(args[0])}
	if c.part.way == allThreads {
		if err := keepCapabilities(); err != nil {
			return err
		}
	}
	w, err := openShared(c.paths.board())
	if err != nil {
		return err
	}
	c.board = board{w}
	go c.board.stalls(servers + number).measure()
	if w, err = openShared(c.paths.history(number)); err != nil {
		return err
	}
	c.history = history{w}
	runtime.LockOSThread()
	if err := c.play(); err != nil {
		c.board.fail()
		return fmt.Errorf("client %d (%v): %w", number, c.part, err)
	}
	role.AwaitEnd()
	return nil
}

// endWithParent ends a process whose parent has gone in the middle of the run.
func endWithParent() {
	for parent := os.Getppid(); os.Getppid() == parent; {
		time.Sleep(time.Second)
	}
	os.Exit(1)
}

// keepCapabilities has changes of ids leave this process's capabilities as they are. It takes threads that begin with that, so the
// process begins again.
func keepCapabilities() error {
	const noSetuidFixup = 1 << 2 // SECBIT_NO_SETUID_FIXUP
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil || bits&noSetuidFixup != 0 {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, noSetuidFixup, 0, 0, 0); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

func (c *client) play() error {
	if c.part.way == oneThread {
		// Of this thread alone.
		if _, _, e := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, 1<<2, 0); e != 0 {
			return e
		}
	}
	if err := c.history.become(who{}, func() error { return nil }); err != nil {
		return err
	}
	if c.part.way == inScopes {
		return c.playInScopes()
	}
	if err := c.change(0, nil); err != nil {
		return err
	}
	for _, place := range c.part.places {
		l, err := c.dial(place)
		if err != nil {
			return err
		}
		c.links = append(c.links, l)
	}
	if c.part.way == oneThread || c.part.way == oneThreadVia {
		return c.playAlone()
	}
	return c.playTogether()
}

func (c *client) dial(place int) (*link, error) {
	conn, err := guise.Dial(c.paths.pipe(serverOf(place)), &guise.QoS{Tracking: guise.Dynamic})
	if err != nil {
		return nil, err
	}
	l := &link{conn: conn, place: place, answers: make(chan error, 1)}
	go func() {
		for b := make([]byte, 1); ; {
			_, err := conn.Read(b)
			l.answers <- err
			if err != nil {
				return
			}
		}
	}()
	return l, nil
}

// ask writes a request. What is true of the client when it writes, or becomes so after, is what the server must show.
func (c *client) ask(l *link, first, last uint64) error {
	c.board.client(c.number).alive()
	l.waits = true
	r := request{Client: uint32(c.number), Place: uint32(l.place), Hop: 1, Hops: uint32(chainOf(l.place)), First: first, Last: last, Duration: someTime()}
	if err := r.write(l.conn); err != nil {
		return fmt.Errorf("writing in state %d: %w", first, err)
	}
	return nil
}

// someTime is how long a scope lasts.
func someTime() time.Duration {
	most := []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond, time.Second}[rand.IntN(4)]
	return rand.N(most)
}

// askIfAnswered asks on every connection on which nothing is under way. It reports whether the client is done.
func (c *client) askIfAnswered() (done bool, err error) {
	finishing := c.board.phase() >= finishing
	done = finishing
	for _, l := range c.links {
		if l.waits {
			select {
			case err := <-l.answers:
				if err != nil {
					return false, fmt.Errorf("waiting for an answer: %w", err)
				}
				l.waits = false
			default:
				done = false
				continue
			}
		}
		if !finishing {
			if err := c.ask(l, c.history.reached(), newest); err != nil {
				return false, err
			}
		}
	}
	return done, nil
}

func (c *client) close() error {
	var errs []error
	for _, l := range c.links {
		errs = append(errs, l.conn.Close())
		<-l.answers // that it is closed
	}
	return errors.Join(errs...)
}

// playAlone changes and asks on the same thread.
func (c *client) playAlone() error {
	for stopped := false; ; {
		phase := c.board.phase()
		if !stopped && phase > changing {
			c.history.stop()
			stopped = true
		}
		done, err := c.askIfAnswered()
		if err != nil {
			return err
		}
		if done {
			return c.close()
		}
		if phase != changing {
			time.Sleep(time.Millisecond)
			continue
		}
		// Between the calls of a change, too, it writes.
		err = c.changeInTime(func() error { _, err := c.askIfAnswered(); return err })
		if err != nil {
			return err
		}
	}
}

// playTogether changes on one thread and asks on others.
func (c *client) playTogether() error {
	changed := make(chan error, 1)
	go func() {
		for c.board.phase() <= changing {
			var err error
			if c.board.phase() == changing {
				err = c.changeInTime(nil)
			} else {
				time.Sleep(time.Millisecond)
			}
			if err != nil {
				changed <- err
				return
			}
		}
		c.history.stop()
		changed <- nil
	}()
	runtime.UnlockOSThread() // all threads are the same
	for {
		select {
		case err := <-changed:
			if err != nil {
				return err
			}
		default:
		}
		done, err := c.askIfAnswered()
		if err != nil {
			return err
		}
		if done {
			return c.close()
		}
		time.Sleep(time.Millisecond)
	}
}

// changeInTime changes once after a random time, or many times at once.
func (c *client) changeInTime(between func() error) error {
	if !c.part.flood {
		time.Sleep(rand.N(c.part.pace))
		return c.change(c.part.next(c.number, c.nth), between)
	}
	// Not all the time, which would be a test of how much a small machine can take. Servers' limits are reached in a tenth of this.
	for end := now() + int64(rand.N(50*time.Millisecond)); now() < end && c.board.phase() == changing; {
		if err := c.change(c.part.next(c.number, c.nth), between); err != nil {
			return err
		}
	}
	time.Sleep(rand.N(time.Second))
	return nil
}

// change makes the client its nth identity: call by call, and after each that is not the last it calls between if that is not nil.
func (c *client) change(n uint32, between func() error) error {
	is, to := c.history.state(c.history.last()), nth(c.number, n)
	set := setThread
	if c.part.way == allThreads || c.part.way == allThreadsVia {
		set = setAllThreads
	}
	step := func(w who, call func(calls, who) error) error {
		is = w
		return c.history.become(w, func() error { return call(set, w) })
	}
	var err error
	if c.part.way == oneThreadVia || c.part.way == allThreadsVia {
		err = step(who{0, is.gid, is.group}, calls.rootAgain)
	}
	for _, s := range []struct {
		to   who
		call func(calls, who) error
	}{
		{who{is.uid, is.gid, to.group}, calls.setGroups},
		{who{is.uid, to.gid, to.group}, calls.setGID},
		{to, calls.setUID},
	} {
		if err == nil {
			err = step(s.to, s.call)
		}
		if err == nil && between != nil && is != to {
			err = between()
		}
	}
	c.nth = n
	return err
}

// calls are the system calls of a change, for one thread or for all.
type calls struct {
	groups  func(group uint32) error
	gid     func(gid uint32) error
	uid     func(uid uint32) error
	backUID func() error
}

func (c calls) setGroups(w who) error { return c.groups(w.group) }
func (c calls) setGID(w who) error    { return c.gid(w.gid) }
func (c calls) setUID(w who) error    { return c.uid(w.uid) }
func (c calls) rootAgain(who) error   { return c.backUID() }

const unchanged = ^uintptr(0)

// setThread changes the effective ids of the calling thread.
var setThread = calls{
	groups: func(group uint32) error { return raw(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&group)), 0) },
	gid:    func(gid uint32) error { return raw(unix.SYS_SETRESGID, unchanged, uintptr(gid), unchanged) },
	uid:    func(uid uint32) error { return raw(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged) },
	backUID: func() error {
		return raw(unix.SYS_SETRESUID, unchanged, 0, unchanged)
	},
}

//go:uintptrescapes
func raw(call, a, b, c uintptr) error {
	if _, _, e := syscall.RawSyscall(call, a, b, c); e != 0 {
		return e
	}
	return nil
}

// setAllThreads changes the real and the effective ids of all threads and leaves the saved ones: root's.
var setAllThreads = calls{
	groups:  func(group uint32) error { return syscall.Setgroups([]int{int(group)}) },
	gid:     func(gid uint32) error { return syscall.Setresgid(int(gid), int(gid), -1) },
	uid:     func(uid uint32) error { return syscall.Setresuid(int(uid), int(uid), -1) },
	backUID: func() error { return syscall.Setresuid(-1, 0, -1) },
}

// playInScopes writes in scopes of one identity after another.
func (c *client) playInScopes() error {
	runtime.UnlockOSThread()
	l, err := c.dial(c.part.places[0])
	if err != nil {
		return err
	}
	c.links = append(c.links, l)
	for c.board.phase() < finishing {
		if c.board.phase() > changing && c.history.stoppedAt() == 0 {
			c.history.stop()
		}
		c.nth = c.part.next(c.number, c.nth)
		to := nth(c.number, c.nth)
		t, err := token.FromIDs(to.uid, to.gid, []uint32{to.group})
		if err != nil {
			return err
		}
		stay := rand.IntN(2) == 0
		err = c.history.become(to, func() error {
			return guise.RunAs(t, func(*guise.Scope) error {
				n := c.history.last()
				if err := c.ask(l, n, n); err != nil || !stay {
					return err
				}
				return <-l.answers
			})
		})
		if err == nil && !stay {
			err = <-l.answers
		}
		if err != nil {
			return err
		}
	}
	return c.close()
}
