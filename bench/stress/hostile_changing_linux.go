package main

import (
	"bufio"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/role"
)

// changesOfScope is how often an honest user changes in one scope of the server's.
const changesOfScope = 10

// changer is an honest user who changes while the library server is in a scope of its. Every other one has two uids and gids, as
// its real and its saved ones; the others are services that may become anybody, and change their groups too.
type changer struct {
	besieged
	states [2]role.IDs
	is     int
	able   bool
}

// beChanging is the role of such a user. It begins as root.
func beChanging(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	one, other := honestUser(n), honestUser(n)
	other.UID, other.GID = one.UID+1, one.GID+1
	c := &changer{besieged: besieged(args[0]), states: [2]role.IDs{one, other}, able: n%2 == 1}
	if c.able {
		c.states[1].Groups = []uint32{memberGroup, one.UID + 2, one.UID + 3}
	} else if err := become(one, other); err != nil {
		return err
	}
	first := func() error { return nil }
	return playHonest(first, func(clock *clock) {
		// The thread is the user for good, and ends with the goroutine.
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			for c.scope(clock); !clock.over.Load(); {
				c.scope(clock)
			}
		}()
		<-done
	})
}

// become makes this process somebody for good, with other ids to go to.
func become(ids, saved role.IDs) error {
	groups := make([]int, len(ids.Groups))
	for i, g := range ids.Groups {
		groups[i] = int(g)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return err
	}
	if err := syscall.Setresgid(int(ids.GID), int(ids.GID), int(saved.GID)); err != nil {
		return err
	}
	return syscall.Setresuid(int(ids.UID), int(ids.UID), int(saved.UID))
}

// scope has the server follow some changes. Each is a request: it is answered when the server's thread says that it is who this
// thread has become.
func (c *changer) scope(clock *clock) {
	var conn *guise.Conn
	var lines *bufio.Reader
	open := func() (err error) {
		if c.able {
			// Of this thread alone: changes of ids leave the capabilities.
			if err := raw(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, 1<<2, 0); err != nil {
				return err
			}
		}
		if err := c.become(0); err != nil {
			return err
		}
		conn, err = dialInTime(c.library(), guise.Dynamic)
		if err != nil {
			return fmt.Errorf("connecting to be followed: %w", err)
		}
		lines = bufio.NewReader(conn)
		if err := conn.SetDeadline(time.Now().Add(unanswered)); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(conn, "follow"); err != nil {
			return fmt.Errorf("asking to be followed: %w", err)
		}
		return c.awaitFollowed(lines, 0, 0)
	}
	close := func() error {
		if err := conn.SetDeadline(time.Now().Add(unanswered)); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(conn, "enough"); err != nil {
			return fmt.Errorf("asking for the scope's end: %w", err)
		}
		return c.await(lines, func(line string) (bool, error) {
			return line == "done", nil
		})
	}
	// Opening and closing count for nothing unless they fail.
	ok := true
	step := func(counts bool, f func() error) {
		if !ok {
			return
		}
		if counts {
			clock.request(following, func() error { err := f(); ok = err == nil; return err })
		} else if err := f(); err != nil {
			ok = false
			clock.request(following, func() error { return err })
		}
	}
	step(false, open)
	for n := range changesOfScope {
		if n > 0 && clock.over.Load() {
			break
		}
		step(true, func() error {
			from, to := c.is, 1-c.is
			if err := conn.SetDeadline(time.Now().Add(unanswered)); err != nil {
				return err
			}
			if err := c.become(to); err != nil {
				return err
			}
			return c.awaitFollowed(lines, from, to)
		})
	}
	step(false, close)
	if conn != nil {
		conn.Close()
	}
}

// become makes this thread one of the states.
func (c *changer) become(n int) error {
	to := c.states[n]
	if c.able {
		groups := to.Groups
		if err := setThreadGroups(groups); err != nil {
			return err
		}
	}
	if err := setThread.setGID(who{gid: to.GID}); err != nil {
		return err
	}
	if err := setThread.setUID(who{uid: to.UID}); err != nil {
		return err
	}
	c.is = n
	return nil
}

// awaitFollowed waits until the server's thread says that it is the state to. Until then it may be that in parts.
func (c *changer) awaitFollowed(lines *bufio.Reader, from, to int) error {
	err := c.await(lines, func(line string) (bool, error) {
		if line == textOf(c.states[to]) {
			return true, nil
		}
		seen, of, next := strings.Split(line, ":"), strings.Split(textOf(c.states[from]), ":"), strings.Split(textOf(c.states[to]), ":")
		for i := range of {
			if len(seen) != len(of) || seen[i] != of[i] && seen[i] != next[i] {
				return false, fmt.Errorf("between %s and %s the server was %q", textOf(c.states[from]), textOf(c.states[to]), line)
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("waiting to be followed: %w", err)
	}
	return nil
}

// await takes lines until one is what it waits for.
func (c *changer) await(lines *bufio.Reader, done func(line string) (bool, error)) error {
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		if done, err := done(strings.TrimSuffix(line, "\n")); done || err != nil {
			return err
		}
	}
}

func setThreadGroups(groups []uint32) error {
	return raw(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
}
