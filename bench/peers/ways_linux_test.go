package main

import (
	"os"
	"runtime"
	"testing"

	"github.com/guise-project/guise/bench/internal/role"
)

func TestMain(m *testing.M) {
	role.Play(roles)
	os.Exit(m.Run())
}

// TestEachWayDoesWhatItIsMeasuredFor has a few requests done in each way. A server that acts as its client can't read for it what only
// root can read; the others can.
func TestEachWayDoesWhatItIsMeasuredFor(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("servers that act as others, and mount namespaces, take root")
	}
	runtime.LockOSThread() // the stage ends with this thread
	defer runtime.UnlockOSThread()
	var all []tried
	if err := onStage(&all, "try"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"guise static": "false", "guise dynamic": "false", "by hand": "false",
		"sudo": "false", "runuser": "false", "cat, started with the client's ids": "false",
		"gRPC": "true", "gRPC, answering from memory": "true", "D-Bus, dbus-daemon": "true", "D-Bus, dbus-broker": "true",
		"Wine's named pipes": "", // its files are all opened by one Unix user: there is nothing to ask
	}
	for _, w := range all {
		reads, ok := want[w.Way]
		switch {
		case !ok:
			t.Errorf("%s is measured, and is not known here", w.Way)
		case w.Missing != "":
			t.Log("not tried: ", w.Missing)
		case w.ReadsSecret != reads:
			t.Errorf("%s: that it reads for its client what only root can read is %q, want %q", w.Way, w.ReadsSecret, reads)
		}
		delete(want, w.Way)
	}
	for name := range want {
		t.Errorf("%s was not tried", name)
	}
}
