package guise

import (
	"context"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/procevents"
	"github.com/guise-project/guise/token"
)

// TestChangeWhileDiallingIsToldWhereTheThreadSpeaksAlready has a thread that has a connection open another, and change meanwhile. What the
// process connector says of that is heard before the other is there.
func TestChangeWhileDiallingIsToldWhereTheThreadSpeaksAlready(t *testing.T) {
	if err := procevents.Available(); err != nil {
		t.Skip("this process hears of no events: ", err)
	}
	needRoot(t, "a client that changes its ids")
	l := listenAt(t, nil)
	dials := func(d *Dialer) (client, server *Conn) {
		d.QoS = &QoS{Tracking: Dynamic}
		client = must1(d.Dial(context.Background(), l.Addr().String()))
		t.Cleanup(func() { client.Close() })
		return client, acceptFrom(t, l)
	}
	is := func(server *Conn, uid uint32) {
		for begun := time.Now(); ; runtime.Gosched() {
			who, err := server.Client()
			if err == nil && who.UID() == uid {
				return
			}
			if time.Since(begun) > 5*time.Second {
				t.Errorf("the client is %v, %v; it has become uid %d", who, err, uid)
				return
			}
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		_, first := dials(&Dialer{})
		noChecks(t)
		_, second := dials(&Dialer{CheckServer: func(*token.Token) error {
			becomeUID(t, 61002)
			is(first, 61002)
			return nil
		}})
		is(second, 61002)
		becomeUID(t, 0)
		is(second, 0)
	}()
	<-done
}

// becomeUID has the calling thread alone become another user.
func becomeUID(t *testing.T, uid uintptr) {
	const unchanged = ^uintptr(0)
	if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, uid, unchanged); e != 0 {
		t.Error(e)
	}
}

// noChecks keeps the next check from finding what should have been told before.
func noChecks(t *testing.T) {
	ownProcess.mu.Lock()
	defer ownProcess.mu.Unlock()
	timer := ownProcess.timer
	timer.Stop()
	t.Cleanup(func() { timer.Reset(0) })
}

// TestThreadsThatCameAndWentAreForgotten: also where many speak, for which the listener hears of all.
func TestThreadsThatCameAndWentAreForgotten(t *testing.T) {
	for _, speaking := range []int{1, procevents.MostThreads + 1} {
		var p processWatch
		first := &clientEnd{}
		for tid := range int32(speaking) {
			p.follow(first, 0, -1-tid) // no thread has such a number
		}
		heard := p.listener != nil
		noMore := &clientEnd{}
		for tid := range int32(1000) {
			p.follow(noMore, 0, -1000-tid)
			p.remove(noMore, -1000-tid)
		}
		if most := speaking + procevents.MostThreads; heard && (len(p.threads) > most || len(p.heard) > most) {
			t.Errorf("with %d threads that speak, %d are open and %d heard of", speaking, len(p.threads), len(p.heard))
		}
		for tid := range int32(speaking) {
			p.remove(first, -1-tid)
		}
		p.rest()
	}
}

// TestNothingIsHeardForNobody: a program may end as soon as it has closed its connections, and the kernel would make events for it for good.
func TestNothingIsHeardForNobody(t *testing.T) {
	if err := procevents.Available(); err != nil {
		t.Skip("this process hears of no events: ", err)
	}
	needRoot(t, "a client that changes its ids")
	ownProcess.rest() // what other tests had
	l := listenAt(t, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		client := must1(Dial(l.Addr().String(), &QoS{Tracking: Dynamic}))
		hears := func() bool {
			ownProcess.mu.Lock() // so that nobody takes what is heard
			defer ownProcess.mu.Unlock()
			_, err := ownProcess.listener.Take(func(int32) {})
			must(err)
			becomeUID(t, 61002)
			becomeUID(t, 0)
			p := []unix.PollFd{{Fd: int32(ownProcess.listener.Descriptor()), Events: unix.POLLIN}}
			must1(unix.Poll(p, 0))
			return p[0].Revents != 0
		}
		noChecks(t)
		for range 2 {
			if !hears() {
				t.Error("nothing is heard of a client's change")
			}
			client.Close()
			if hears() {
				t.Error("after the last connection was closed the process connector is still subscribed to")
			}
			client = must1(Dial(l.Addr().String(), &QoS{Tracking: Dynamic}))
		}
		client.Close()
	}()
	<-done
}

// TestEndsGoWithTheThreadThatSpeaks has one end spoken for by one thread after another, as goroutines go from thread to thread.
func TestEndsGoWithTheThreadThatSpeaks(t *testing.T) {
	var p processWatch
	defer p.rest()
	e := &clientEnd{}
	for tid := range int32(4) {
		p.follow(e, -tid, -1-tid) // no thread has such a number
		if old := p.threads[-tid]; old != nil && len(old.ends) > 0 {
			t.Errorf("thread %d speaks for an end that another speaks for", -tid)
		}
		if p.ends != 1 || p.paused || p.turns != 0 {
			t.Errorf("%d ends, paused %t, %d turns: want 1 that is listened for all the time", p.ends, p.paused, p.turns)
		}
	}
	p.remove(e, -4)
	p.remove(e, -4)
	if p.ends != 0 || p.paused != (p.listener != nil) {
		t.Errorf("%d ends, paused %t: want none, for whom nobody listens", p.ends, p.paused)
	}
}
