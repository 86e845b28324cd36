package guise

import (
	"runtime"
	"testing"
	"time"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/procevents"
	"github.com/guise-project/guise/internal/readiness"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// TestProcessConnectorIsHeardWhileSomebodySpeaks: without it a change would still be found, later.
func TestProcessConnectorIsHeardWhileSomebodySpeaks(t *testing.T) {
	if err := procevents.Available(); err != nil {
		t.Skip("this process hears of no events: ", err)
	}
	heard := func() bool {
		ownProcess.mu.Lock()
		defer ownProcess.mu.Unlock()
		return ownProcess.listener != nil
	}
	client := must1(Dial(listenAt(t, nil).Addr().String(), &QoS{Tracking: Dynamic}))
	if !heard() {
		t.Error("a client that is to be followed does not listen to the process connector")
	}
	listener := func() *procevents.Listener {
		ownProcess.mu.Lock()
		defer ownProcess.mu.Unlock()
		return ownProcess.listener
	}
	before := listener()
	client.Close()
	must1(Dial(listenAt(t, nil).Addr().String(), &QoS{Tracking: Dynamic})).Close()
	if after := listener(); after != nil && before != nil && after != before {
		t.Error("one connection after another each listen to the process connector anew, which costs more than all the rest of a connection")
	}
	for begun := time.Now(); heard(); runtime.Gosched() {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("the process connector is listened to for nobody")
		}
	}
}

// TestWhatChangesBetweenTheLookAndTheListeningIsSeen: nobody hears of that change.
func TestWhatChangesBetweenTheLookAndTheListeningIsSeen(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	client := must1(Dial(listenAt(t, nil).Addr().String(), &QoS{Tracking: Dynamic}))
	defer client.Close()
	e := client.client
	e.mu.Lock()
	defer e.mu.Unlock()
	tid := e.process.tid
	if ownProcess.follow(e, tid, tid) {
		t.Error("a thread that speaks and is heard of is looked at anew with each write")
	}
	unfollowProcess(e, tid)
	if !ownProcess.follow(e, 0, tid) {
		t.Error("a connection's thread is not looked at when it begins to be heard of")
	}
	if e.changedSince() {
		t.Error("a thread that is as it was is another")
	}
	var own announce.Look
	must(own.Take())
	e.placed.look.CopyFrom(announce.LookOf(must1(token.FromIDs(61002, 61002, nil)), token.AllCapabilities))
	defer e.placed.look.CopyFrom(&own)
	if !e.changedSince() {
		t.Error("a thread that is another than was announced is as it was")
	}
}

// TestWhatIsOlderIsNotTold: what was seen of a client that was another user for a moment.
func TestWhatIsOlderIsNotTold(t *testing.T) {
	for _, test := range []struct {
		than string
		do   func(*clientEnd) (spoke uint64) // the last time before which that was seen
	}{
		{"what a write has announced", func(*clientEnd) uint64 { return 0 }}, // no end has spoken with this number
		{"the last look before closing, after which it would stand for good", func(e *clientEnd) uint64 {
			ownProcess.mu.Lock()
			spoke := ownProcess.threads[e.process.tid].spoke
			ownProcess.mu.Unlock()
			e.lastLook()
			return spoke
		}},
	} {
		t.Run(test.than, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			client := must1(Dial(listenAt(t, nil).Addr().String(), &QoS{Tracking: Dynamic}))
			defer client.Close()
			e := client.client
			var own announce.Look
			must(own.Take())
			proof := must1(own.Prove())
			defer proof.Close()
			older := announce.LookOf(must1(token.FromIDs(61002, 61002, nil)), token.AllCapabilities)
			e.announceProcess(e.process.tid, test.do(e), older, proof)
			e.mu.Lock()
			defer e.mu.Unlock()
			if !e.process.look.Equal(&own) {
				t.Error("what was seen of the process before has been announced after it")
			}
		})
	}
}

// TestSilentSpeakerWhoseNumberIsUsedAgainIsLookedAt has a thread speak that has the number of one that spoke before, and has ended.
func TestSilentSpeakerWhoseNumberIsUsedAgainIsLookedAt(t *testing.T) {
	ended := make(chan int32)
	opened := make(chan *announce.Thread)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		ended <- thread.ID()
		opened <- must1(announce.OpenThread(thread.ID()))
	}()
	tid, old := <-ended, <-opened
	var look announce.Look
	for begun := time.Now(); old.Look(&look) == nil; runtime.Gosched() {
		if time.Since(begun) > patience {
			t.Fatalf("thread %d does not end", tid)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own := thread.ID()
	p := &processWatch{threads: map[int32]*speaker{own: {thread: old, spoke: 7}}}
	if spoke, ok := p.lookAtSpeaker(own, &look); !ok || spoke != 7 {
		t.Errorf("looking at it gives %d, %t: a change of it would be told with the next check", spoke, ok)
	}
	p.rest()
	if ok, err := lookAt(old, own, &look); ok || err == nil {
		t.Errorf("a look at the thread that has ended gives %t, %v", ok, err)
	}
}

// TestOnlyTheSpeakerLooksAtItself: that another thread is as the server was told says nothing of the one that spoke.
func TestOnlyTheSpeakerLooksAtItself(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	client := must1(Dial(listenAt(t, nil).Addr().String(), &QoS{Tracking: Dynamic}))
	defer client.Close()
	e := client.client
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.process.isStill(&e.now) {
		t.Error("the thread that spoke is not as it was")
	}
	others := make(chan bool)
	go func() { others <- e.process.isStill(&e.now) }() // on another thread, because this one is locked
	if <-others {
		t.Error("another thread is taken for the one that spoke")
	}
}

// TestThreadsThatSpeakNoMoreAreNotLookedAt: they may go in and out of scopes all the time, which make events.
func TestThreadsThatSpeakNoMoreAreNotLookedAt(t *testing.T) {
	if err := procevents.Available(); err != nil {
		t.Skip("this process hears of no events: ", err)
	}
	needRoot(t, "a thread that changes its ids")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		tid := thread.ID()
		p := processWatch{threads: map[int32]*speaker{tid: {}}, timer: time.NewTimer(time.Hour)}
		p.listener = must1(procevents.Listen())
		p.watched = must1(readiness.Add(p.listener.Descriptor(), eventsLimit, func() {}))
		becomeUID(t, 61002)
		becomeUID(t, 0)
		p.hear()
		if p.threads[tid].thread != nil {
			t.Error("a thread that speaks for no connection has been looked at")
		}
		p.threads[tid].ends = map[*clientEnd]struct{}{{}: {}}
		becomeUID(t, 61002)
		becomeUID(t, 0)
		p.hear()
		if p.threads[tid].thread == nil {
			t.Error("a thread that speaks for a connection has not been looked at")
		}
		clear(p.threads[tid].ends)
		p.rest()
	}()
	<-done
}

// TestTheLastLookWaitsForAnother that has the end for a moment: else what changed since that one is never told.
func TestTheLastLookWaitsForAnother(t *testing.T) {
	client := must1(Dial(listenAt(t, nil).Addr().String(), &QoS{Tracking: Dynamic}))
	defer client.Close()
	e := client.client
	for range 1000 {
		has, had := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(had)
			ownProcess.looking.Lock()
			defer ownProcess.looking.Unlock()
			e.mu.Lock()
			defer e.mu.Unlock()
			close(has)
			runtime.Gosched()
		}()
		<-has
		if !ownProcess.between(e) {
			t.Error("a client that closes does not look at itself because somebody else just looks")
			<-had
			return
		}
		e.mu.Unlock()
		<-had
	}
	e.mu.Lock() // as a write does that waits for the server
	defer e.mu.Unlock()
	if ownProcess.between(e) {
		t.Error("two have the same end")
	}
}
