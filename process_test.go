package guise

import (
	"testing"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/procevents"
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
	client.Close()
	if heard() {
		t.Error("the process connector is listened to for nobody")
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
