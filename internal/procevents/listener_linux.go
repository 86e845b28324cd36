// Package procevents hears from the kernel's process connector of the changes of this process's user and group ids.
//
// What it hears is a hint and no proof of anything. That no event came does not say that no id changed:
//
//   - An unprivileged process can silence the connector for the whole machine, by requests that let the kernel's count of
//     listeners drop below zero. [Listener.Prove] finds out that it is silent, not that it was.
//   - The kernel drops an event without telling when it has no memory for it.
//   - setgroups(2) and capset(2) make no events.
package procevents

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrSilent is what an error wraps if the connector is there and does not say anything to this process.
var ErrSilent = errors.New("the process connector is silent")

// Listener hears when a thread of this process changes its user or group ids by setresuid(2), setfsgid(2) and the like, or the
// kernel by execve(2). A call that leaves all ids as they were is no change.
//
// Only Prove may be called while another method runs.
type Listener struct {
	*socket
	process int
	// lost: the kernel has dropped events since the queue was last empty.
	lost bool
}

// Listen begins to listen. It takes Linux 6.6 and no privileges, and the initial network, pid and user namespaces. The error
// wraps [ErrSilent] if the kernel does not answer.
func Listen() (*Listener, error) { return listenTo(os.Getpid()) }

func listenTo(process int) (*Listener, error) {
	number := rand.Uint32()
	s, err := join(idChanges(uint32(process), number+1))
	if err != nil {
		return nil, err
	}
	l := &Listener{socket: s, process: process}
	if err := l.subscribe(number); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// subscribe has the kernel send id changes. It answers only those that want all events. So we first do, and the filter keeps
// out the rest.
func (l *Listener) subscribe(number uint32) error {
	if err := l.send(request(subscribe, allEvents, number)); err != nil {
		return fmt.Errorf("subscribing to the process connector: %w", err)
	}
	answer, err := l.await(eventNone)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: no answer to subscribing: it takes Linux 6.6 and the initial pid and user namespaces", ErrSilent)
	case err != nil:
		return fmt.Errorf("waiting for the process connector's answer to subscribing: %w", err)
	case answer.thread != 0:
		return fmt.Errorf("subscribing to the process connector: it answers: %w", syscall.Errno(answer.thread))
	}
	// What comes between the answer and this is not lost: the filter is the same.
	return l.Resume()
}

// Resume is the reverse of Pause. Changes before it are not heard of.
func (l *Listener) Resume() error {
	if err := l.send(request(subscribe, eventUID|eventGID, 0)); err != nil {
		return fmt.Errorf("subscribing to id changes: %w", err)
	}
	return nil
}

// Pause has nothing sent until Resume, at less cost than Close and Listen. A process that ends meanwhile leaves no subscription behind, which the
// kernel would go on to make events for.
func (l *Listener) Pause() error {
	if err := l.send(request(unsubscribe, allEvents, 0)); err != nil {
		return fmt.Errorf("unsubscribing from the process connector: %w", err)
	}
	return nil
}

// MostThreads is how many threads [Listener.Only] takes.
const MostThreads = 64

// Only has the listener hear of some threads' changes alone, and not of those that are queued for others. It takes 1 to [MostThreads].
func (l *Listener) Only(threads []int32) error {
	if len(threads) == 0 || len(threads) > MostThreads {
		return fmt.Errorf("%d threads to hear of instead of 1 to %d", len(threads), MostThreads)
	}
	return l.filter(idChangesOf(uint32(l.process), threads))
}

// All is the reverse of Only.
func (l *Listener) All() error { return l.filter(idChanges(uint32(l.process), 0)) }

func (l *Listener) filter(filter []unix.SockFilter) error {
	if err := attach(l.fd, filter); err != nil {
		return fmt.Errorf("filtering the process connector's events: %w", err)
	}
	return nil
}

// Descriptor returns the socket, which polls as readable when Take has something to do. It stays the listener's.
func (l *Listener) Descriptor() int { return l.fd }

// atOnce is how many messages Take receives at most.
const atOnce = 256

// Take receives what is queued, without waiting, and calls changed with the thread of each event, which may have ended since.
// It takes at most 256 messages; if there are more, the descriptor stays readable.
//
// If lost is true, the kernel has dropped events, and the caller has to look at all threads: as often as it is true, because
// until the queue is empty the kernel drops more of them and tells only once.
func (l *Listener) Take(changed func(tid int32)) (lost bool, err error) {
	lost = l.lost
	for range atOnce {
		ev, ok, e := l.receive()
		switch {
		case e == unix.EAGAIN:
			l.lost = false
			return lost, nil
		case e == unix.ENOBUFS:
			l.lost, lost = true, true
		case e != 0:
			return lost, fmt.Errorf("receiving from the process connector: %w", e)
		case ok && (ev.what == eventUID || ev.what == eventGID):
			changed(ev.thread)
		}
	}
	return lost, nil
}

// Close unsubscribes and closes the descriptor.
func (l *Listener) Close() error {
	// The kernel does not do it by itself: without it every process's events are made for nobody.
	unsubscribing := l.Pause()
	if err := l.close(); err != nil {
		return fmt.Errorf("closing the process connector's socket: %w", err)
	}
	return unsubscribing
}
