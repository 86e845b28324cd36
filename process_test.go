package guise

import (
	"runtime"
	"testing"
	"time"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/procevents"
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

// TestWhatChangesBetweenTheLookAndTheListeningIsTold: nobody hears of that change.
func TestWhatChangesBetweenTheLookAndTheListeningIsTold(t *testing.T) {
	client := must1(Dial(listenAt(t, nil).Addr().String(), &QoS{Tracking: Dynamic}))
	defer client.Close()
	e := client.client
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var own announce.Look
	must(own.Take())
	for _, row := range []struct {
		name   string
		look   *announce.Look
		toLook bool
	}{
		{"nothing", &own, false},
		{"the user", announce.LookOf(must1(token.FromIDs(61002, 61002, nil)), token.AllCapabilities), true},
	} {
		t.Run(row.name, func(t *testing.T) {
			e.mu.Lock()
			defer e.mu.Unlock()
			unfollowProcess(e, e.process.tid)
			forgetLater(e)
			e.placed.look.CopyFrom(row.look)
			defer e.placed.look.CopyFrom(&own)
			e.process.tid = thread.ID()
			followProcess(e, 0, e.process.tid)
			late.mu.Lock()
			_, toLook := late.ends[e]
			late.mu.Unlock()
			if toLook != row.toLook {
				t.Errorf("that it is looked at once more is %t instead of %t", toLook, row.toLook)
			}
		})
	}
}

// TestWhatWasSeenBeforeAWriteIsNotToldAfterIt: it is older.
func TestWhatWasSeenBeforeAWriteIsNotToldAfterIt(t *testing.T) {
	client := must1(Dial(listenAt(t, nil).Addr().String(), &QoS{Tracking: Dynamic}))
	defer client.Close()
	e := client.client
	var own announce.Look
	must(own.Take())
	proof := must1(own.Prove())
	defer proof.Close()
	older := announce.LookOf(must1(token.FromIDs(61002, 61002, nil)), token.AllCapabilities)
	const before = 0 // no end has spoken with this number
	e.announceProcess(e.process.tid, before, older, proof)
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.process.look.Equal(&own) {
		t.Error("what was seen of the process before it spoke itself has been announced after that")
	}
}
