package actor

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/token"
)

// goroutine is an actor on a goroutine of this process, locked to a thread with ids of its own.
type goroutine struct {
	told    chan Order
	answers chan Answer
	ended   chan struct{}
}

// Goroutine starts an actor as a goroutine of this process, whose thread gets the given effective ids and, unless they are
// root's, those capabilities as effective ones. It takes root. The thread ends with the actor.
func Goroutine(ids IDs, capabilities ...uintptr) (Actor, error) {
	g := &goroutine{make(chan Order), make(chan Answer), make(chan struct{})}
	var set token.CapSet
	for _, n := range capabilities {
		set |= 1 << n
	}
	ready := make(chan error)
	go func() {
		defer close(g.ended)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		change := func(ids IDs) (int64, error) { return changeThread(ids, set) }
		_, err := change(ids)
		ready <- err
		if err == nil {
			p := newPerformance(g, change, enable)
			p.play()
			p.end()
		}
	}()
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("making a thread uid %d: %w", ids.UID, err)
	}
	return g, nil
}

func (g *goroutine) next() (Order, bool) {
	o, ok := <-g.told
	return o, ok
}

func (g *goroutine) answer(a Answer) { g.answers <- a }

func (g *goroutine) Do(o Order) (Answer, error) {
	select {
	case g.told <- o:
	case <-g.ended:
		return Answer{}, errors.New("the actor has ended")
	}
	a := <-g.answers
	return a, a.Err()
}

func (g *goroutine) PID() int { return os.Getpid() }

// Stop ends the actor. A scope that it is in is left.
func (g *goroutine) Stop() error {
	close(g.told)
	for {
		select {
		case <-g.answers: // of a scope that was left
		case <-g.ended:
			return nil
		}
	}
}

// changeThread changes the calling thread's effective ids and its groups, and leaves it the capabilities that belong to them.
// It returns the moment before the uid was changed.
func changeThread(ids IDs, capabilities token.CapSet) (at int64, err error) {
	if err := enable(token.AllCaps); err != nil {
		return 0, fmt.Errorf("raising the capabilities: %w", err)
	}
	const unchanged = ^uintptr(0)
	groups := slices.Clone(ids.Groups)
	if _, _, e := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0); e != 0 {
		return 0, fmt.Errorf("setgroups: %w", e)
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SETRESGID, unchanged, uintptr(ids.GID), unchanged); e != 0 {
		return 0, fmt.Errorf("setresgid: %w", e)
	}
	at = now()
	if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(ids.UID), unchanged); e != 0 {
		return 0, fmt.Errorf("setresuid: %w", e)
	}
	if ids.UID == 0 {
		return at, nil
	}
	return at, enable(capabilities)
}
