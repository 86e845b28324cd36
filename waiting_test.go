package guise_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/leftover"
)

func TestWaitClientLeavesTheReadDeadlineAlone(t *testing.T) {
	l := listenOn(t, nil)
	for name, set := range map[string]time.Time{"none": {}, "one that has passed": time.Unix(2, 0)} {
		t.Run(name, func(t *testing.T) {
			near, err := guise.Dial(l.Addr().String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer near.Close()
			server := acceptUnread(t, l)
			if err := server.SetReadDeadline(set); err != nil {
				t.Fatal(err)
			}
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			server.WaitClient(ended) // its answer is chance: the client has said something already
			if _, err := near.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			_, err = server.Read(make([]byte, 1))
			if wantTimeout := !set.IsZero(); errors.Is(err, os.ErrDeadlineExceeded) != wantTimeout {
				t.Errorf("a read after WaitClient was cancelled gives %v; timing out is wanted: %v", err, wantTimeout)
			}
		})
	}
}

// TestWriteThatWaitsForTheServerHasADeadline has a write from outside of the scope that a connection was opened in, of a client that
// stated no tracking and a server that never looks.
func TestWriteThatWaitsForTheServerHasADeadline(t *testing.T) {
	needRoot(t)
	l := listenOn(t, nil)
	err := guise.RunAs(identity(t, 61001, 61001), func(*guise.Scope) error {
		near, err := guise.Dial(l.Addr().String(), nil)
		if err != nil {
			return err
		}
		defer near.Close()
		if err := near.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			return err
		}
		outside := make(chan error)
		go func() { _, err := near.Write([]byte("x")); outside <- err }()
		if err := <-outside; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the write gives %v, want the deadline's error", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestClosedConnectionTakesNoControlChannel(t *testing.T) {
	l := listenOn(t, nil)
	leftover.Settle()
	before := len(leftover.Descriptors())
	for range 20 {
		near, err := guise.Dial(l.Addr().String(), &guise.QoS{Tracking: guise.Dynamic})
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.AcceptPipe()
		if err != nil {
			t.Fatal(err)
		}
		server.Close()
		server.QoS()
		if err := server.RunAsClient(func(*guise.Scope) error { return nil }); err == nil {
			t.Error("RunAsClient works on a closed connection")
		}
		near.Close()
	}
	discard.Wait()
	leftover.Settle()
	if after := len(leftover.Descriptors()); after > before {
		t.Errorf("%d descriptors are open, before there were %d", after, before)
	}
}

// TestReadingAndActingAtOnce is for the race detector: one goroutine reads while others act as the client.
func TestReadingAndActingAtOnce(t *testing.T) {
	needRoot(t)
	for _, message := range []bool{false, true} {
		near, server := pair(t, listenOn(t, &guise.ListenConfig{Message: message}), identity(t, 61001, 61001), &guise.QoS{Tracking: guise.Dynamic})
		var wait sync.WaitGroup
		wait.Add(2)
		go func() {
			defer wait.Done()
			for i := range 100 {
				writeAs(t, near, identity(t, 61001+uint32(i%3), 61001), 'x')
			}
			near.CloseWrite()
		}()
		go func() {
			defer wait.Done()
			for range 100 {
				if err := server.RunAsClient(func(*guise.Scope) error { return nil }); err != nil {
					t.Error(err)
				}
			}
		}()
		for buf := make([]byte, 2); ; {
			if n, err := server.Read(buf); n == 0 || err != nil {
				break
			}
		}
		wait.Wait()
	}
}

// TestScopeOfTheSameUserIsAnotherSource has a client write for somebody who has its own ids, and then change itself.
func TestScopeOfTheSameUserIsAnotherSource(t *testing.T) {
	needRoot(t)
	root := identity(t, 0, 0)
	near, server := pair(t, listenOn(t, nil), nil, &guise.QoS{Tracking: guise.Dynamic})
	writeAs(t, near, root, '1')
	if _, err := server.Read(make([]byte, 9)); err != nil {
		t.Fatal(err)
	}
	writeChanged(t, near, identity(t, 61007, 61007), '2')
	actsAs(t, "after the client itself changed", server, root)
}
