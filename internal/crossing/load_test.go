package crossing

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/guise-project/guise/internal/machines"
)

// loaded are several clients of each account that open pipes, write, read and close without end.
var loaded = part{Clients: 3, Requests: 3, Timeout: 30 * time.Second}

func TestSambaIsStartedAgainUnderLoad(t *testing.T) {
	n := newStage(t, machines.Config{Sign: true}).Network
	server := newDaemon(t, n.Machines[2])
	crowd := newCrowd(t, n, server, loaded)
	crowd.more(5, crowd.answered)
	for range 2 {
		if err := n.Machines[2].StopSamba(); err != nil {
			t.Fatal(err)
		}
		crowd.more(2, crowd.failed)
		if err := n.Machines[2].StartSamba(t.Context()); err != nil {
			t.Fatal(err)
		}
		crowd.more(5, crowd.answered)
	}
	crowd.check()
}

func TestServerIsStartedAgainUnderLoad(t *testing.T) {
	n := newStage(t, machines.Config{Sign: true}).Network
	for _, how := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(how.String(), func(t *testing.T) {
			server := newDaemon(t, n.Machines[2])
			crowd := newCrowd(t, n, server, loaded)
			crowd.more(5, crowd.answered)
			for range 2 {
				server.stop(how)
				crowd.more(2, crowd.failed)
				server.start()
				crowd.more(5, crowd.answered)
			}
			crowd.check()
			server.stop(syscall.SIGTERM)
			if err := server.remove(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCableIsCutUnderLoad cuts the server's machine off.
func TestCableIsCutUnderLoad(t *testing.T) {
	n := newStage(t, machines.Config{Sign: true}).Network
	third := n.Machines[2]
	server := newDaemon(t, third)
	p := loaded
	p.Timeout = 3 * time.Second
	crowd := newCrowd(t, n, server, p)
	crowd.more(5, crowd.answered)
	for range 2 {
		if err := third.SetLink(false); err != nil {
			t.Fatal(err)
		}
		crowd.more(2, crowd.failed)
		if err := third.SetLink(true); err != nil {
			t.Fatal(err)
		}
		crowd.more(5, crowd.answered)
	}
	crowd.check()
}

func TestManyClientsAtOnce(t *testing.T) {
	n := newStage(t, machines.Config{Encrypt: true}).Network
	server := newDaemon(t, n.Machines[2])
	const each = 40
	crowd := newCrowd(t, n, server, part{Clients: each, Requests: 1, Hold: true, Timeout: time.Minute})
	begun := time.Now()
	until(t, func() error {
		crowd.mu.Lock()
		defer crowd.mu.Unlock()
		all := 0
		for _, who := range People {
			all += crowd.answered[who.Account] + crowd.failed[who.Account]
		}
		if all += len(crowd.wrong); all < each*len(People) {
			return fmt.Errorf("of %d requests %d are neither answered nor failed", each*len(People), each*len(People)-all)
		}
		return nil
	})
	t.Logf("%d clients have connections open after %v", len(crowd.requests), time.Since(begun).Round(time.Millisecond))
	crowd.check()
	if got := len(crowd.requests); got != each*len(People) {
		t.Errorf("%d of %d requests were answered", got, each*len(People))
	}
}
