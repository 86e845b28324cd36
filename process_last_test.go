package guise

import (
	"runtime"
	"testing"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/token"
)

// TestWhatWasSeenBeforeTheLastLookIsNotToldAfterIt has somebody look at a client that is another user for a moment, and tell of it when the
// client is itself again and is closing.
func TestWhatWasSeenBeforeTheLastLookIsNotToldAfterIt(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	client := must1(Dial(listenAt(t, nil).Addr().String(), &QoS{Tracking: Dynamic}))
	defer client.Close()
	e := client.client
	var own announce.Look
	must(own.Take())
	proof := must1(own.Prove())
	defer proof.Close()
	ownProcess.mu.Lock()
	spoke := ownProcess.threads[e.process.tid].spoke
	ownProcess.mu.Unlock()
	other := announce.LookOf(must1(token.FromIDs(61002, 61002, nil)), token.AllCapabilities)
	e.lastLook()
	e.announceProcess(e.process.tid, spoke, other, proof)
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.process.look.Equal(&own) {
		t.Error("what was seen of the process before the last look has been announced after it: it stands for good")
	}
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
