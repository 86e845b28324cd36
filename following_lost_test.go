package guise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// becomesNobody waits until the calling thread is nobody: the ids id, no groups, no capabilities, and no access to a file of
// another's.
func becomesNobody(t *testing.T, who string, id int, private string) {
	t.Helper()
	for begun := time.Now(); unix.Geteuid() != id; runtime.Gosched() {
		if time.Since(begun) > patience/4 {
			t.Errorf("after %v %s still has uid %d: a scope whose client's context is lost has to become %d by itself", patience/4, who, unix.Geteuid(), id)
			return
		}
	}
	groups, err := unix.Getgroups()
	if gid := unix.Getegid(); err != nil || gid != id || len(groups) != 0 {
		t.Errorf("%s is nobody with gid %d, groups %v, %v", who, gid, groups, err)
	}
	if sets, e := capability.Get(); e != 0 || sets.Effective != 0 {
		t.Errorf("%s is nobody with the capabilities %v, %v", who, sets.Effective, e)
	}
	if _, err := os.ReadFile(private); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%s is nobody and reads its client's private file: %v", who, err)
	}
}

// aliceToken is the client of these tests.
func aliceToken() *token.Token { return must1(token.FromIDs(61001, 61001, []uint32{61101})) }

// asAlice calls f in a scope of alice's, on a goroutine of its own.
func asAlice(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		must(RunAs(aliceToken(), func(*Scope) error { f(); return nil }))
	}()
	<-done
}

// rawAlice is a client of l that is alice and does each step by hand, accepted by a server that has read its first byte.
func rawAlice(t *testing.T, l *Listener) (*rawClient, *Conn) {
	t.Helper()
	var client *rawClient
	asAlice(func() {
		client = dialRaw(t, l)
		client.open()
	})
	server := acceptFrom(t, l)
	if n, err := server.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Fatalf("the first read gives %d, %v", n, err)
	}
	return client, server
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-time.After(patience / 4):
		return false
	}
}

// TestClientThatBreaksTheProtocolTakesTheScopesWithIt has a client break it while B is in a scope, and C in one behind B.
func TestClientThatBreaksTheProtocolTakesTheScopesWithIt(t *testing.T) {
	needRoot(t, "it acts as others")
	breaks := map[string]func(c *rawClient){
		"garbage":         func(c *rawClient) { c.say("garbage") },
		"no token socket": func(c *rawClient) { must(c.announce(1, -1, c.claim())) },
		"another's token socket": func(c *rawClient) { // made by this thread, which is root, and claimed as alice
			fd := c.token()
			asAlice(func() { must(c.announce(1, fd, &unix.Ucred{Pid: int32(os.Getpid()), Uid: 61001, Gid: 61001})) })
		},
	}
	for name, breaks := range breaks {
		for _, nobody := range []uint32{0, 61999} {
			for _, before := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/nobody %d/B to C opened before the scope: %v", name, nobody, before), func(t *testing.T) {
					want := int(nobody)
					if nobody == 0 {
						want = 4294967293
					}
					private := filepath.Join(testdir.Open(t, 0o755), "private")
					must(os.WriteFile(private, []byte("x"), 0o600))
					must(os.Chown(private, 61001, 61001))
					config := &ListenConfig{Nobody: nobody}
					back := listenAt(t, config)
					client, b := rawAlice(t, listenAt(t, config))
					var hop *Conn
					if before {
						hop = must1(Dial(back.Addr().String(), &QoS{Tracking: Dynamic}))
					}
					static := must1(Dial(listenAt(t, nil).Addr().String(), &QoS{Tracking: Static}))
					defer static.Close()
					var c *Conn
					behind := make(chan error, 1)
					outsideDone, heard := make(chan struct{}), make(chan struct{})
					err := b.RunAsClient(func(s *Scope) error {
						if !before {
							hop = must1(Dial(back.Addr().String(), &QoS{Tracking: Dynamic}))
						}
						must1(hop.Write([]byte("x")))
						c = acceptFrom(t, back)
						must1(c.Read(make([]byte, 1)))
						entered := make(chan struct{})
						go func() {
							behind <- c.RunAsClient(func(s *Scope) error {
								changed := s.Changed()
								if _, err := os.ReadFile(private); err != nil {
									t.Errorf("C reads its client's file before anything is lost: %v", err)
								}
								close(entered)
								becomesNobody(t, "C", want, private)
								close(heard)
								if !closed(changed) {
									t.Error("C's Changed is not closed when the context is lost")
								}
								<-outsideDone // until B has looked at C
								return nil
							})
						}()
						<-entered
						changed := s.Changed()
						broken := make(chan struct{})
						go func() { defer close(broken); breaks(client) }()
						defer func() { <-broken }()
						becomesNobody(t, "B", want, private)
						if !closed(changed) {
							t.Error("B's Changed is not closed when the context is lost")
						}
						if got := s.Token(); int(got.UID()) != want {
							t.Errorf("B's Scope.Token is %s", got)
						}
						if _, err := hop.Write([]byte("y")); !errors.Is(err, ErrContextLost) {
							t.Errorf("a write on a dynamic connection in a lost scope: %v", err)
						}
						for _, tracking := range []Tracking{Dynamic, Static, TrackingUnstated} {
							if c, err := Dial(back.Addr().String(), &QoS{Tracking: tracking}); !errors.Is(err, ErrContextLost) {
								t.Errorf("Dial, %v, in a lost scope: %v", tracking, err)
								if c != nil {
									c.Close()
								}
							}
						}
						if err := s.Command("/bin/true").Run(); !errors.Is(err, ErrContextLost) {
							t.Errorf("a command in a lost scope: %v", err)
						}
						s.Go(func() error { becomesNobody(t, "a goroutine that B starts then", want, private); return nil })
						if err := b.RunAsClient(func(*Scope) error { t.Error("B has acted for a client whose context is lost"); return nil }); !errors.Is(err, ErrContextLost) {
							t.Errorf("RunAsClient inside the lost scope: %v", err)
						}
						if got := unix.Geteuid(); got != want {
							t.Errorf("after all that B's uid is %d", got)
						}
						return nil
					})
					if err != nil {
						t.Errorf("B's RunAsClient: %v", err)
					}
					if uid := unix.Geteuid(); uid != 0 {
						t.Errorf("after the lost scope B is uid %d", uid)
					}
					err = b.RunAsClient(func(*Scope) error { t.Error("B has acted for a client whose context is lost"); return nil })
					if !errors.Is(err, ErrContextLost) {
						t.Errorf("B's next RunAsClient: %v", err)
					}
					<-heard // what B passes on takes its time
					err = c.RunAsClient(func(*Scope) error { t.Error("C has acted for a client whose context is lost"); return nil })
					if !errors.Is(err, ErrContextLost) {
						t.Errorf("C's next RunAsClient: %v", err)
					}
					if who, err := c.Client(); !errors.Is(err, ErrContextLost) {
						t.Errorf("C's Client: %v, %v", who, err)
					}
					close(outsideDone)
					if err := <-behind; err != nil {
						t.Errorf("C's RunAsClient: %v", err)
					}
					// B itself has done nothing wrong.
					must1(hop.Write([]byte("z")))
					if n, err := c.Read(make([]byte, 8)); n != 1 || err != nil {
						t.Errorf("C reads what B writes as itself: %d, %v", n, err)
					}
					uid := -1
					if err := c.RunAsClient(func(*Scope) error { uid = unix.Geteuid(); return nil }); err != nil || uid != 0 {
						t.Errorf("C acts for B itself as uid %d, %v", uid, err)
					}
					hop.Close()
				})
			}
		}
	}
}

// announces has a client announce what alice is, with another level.
func (c *rawClient) announces(level Level, sequence uint64) {
	asAlice(func() {
		control := append(unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: 61001, Gid: 61001}), unix.UnixRights(c.token())...)
		must(unix.Sendmsg(c.near, []byte(rawContext(byte(level), sequence, 1)), control, nil, unix.MSG_NOSIGNAL))
	})
}

// TestLevelThatIsLoweredInAScope has a client lower its level while the server acts as it, and raise it again.
func TestLevelThatIsLoweredInAScope(t *testing.T) {
	needRoot(t, "it acts as others")
	for _, level := range []Level{Identification, Anonymous} {
		t.Run(level.String(), func(t *testing.T) {
			private := filepath.Join(testdir.Open(t, 0o755), "private")
			must(os.WriteFile(private, []byte("x"), 0o600))
			must(os.Chown(private, 61001, 61001))
			back := listenAt(t, nil)
			client, b := rawAlice(t, listenAt(t, nil))
			err := b.RunAsClient(func(s *Scope) error {
				client.announces(level, 1)
				becomesNobody(t, "B", 4294967293, private)
				if c, err := Dial(back.Addr().String(), nil); !errors.Is(err, ErrLevel) {
					t.Errorf("Dial in a scope whose client has lowered its level: %v", err)
					if c != nil {
						c.Close()
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			err = b.RunAsClient(func(*Scope) error { t.Error("B acts for a client that allows less"); return nil })
			if !errors.Is(err, ErrLevel) {
				t.Errorf("the next entry: %v, want ErrLevel", err)
			}
			// The connection goes on, and with it what the scope used.
			client.announces(Impersonation, 2)
			deadline := time.Now().Add(patience / 4)
			for err = b.RunAsClient(func(*Scope) error { return nil }); errors.Is(err, ErrLevel) && time.Now().Before(deadline); {
				err = b.RunAsClient(func(*Scope) error { return nil })
			}
			if err != nil {
				t.Errorf("an entry after the client has raised its level again: %v", err)
			}
			if err := b.Freeze(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestScopeThatWasLostLeavesNothingToTheNext has a static scope come after one that was lost, on the same connection.
func TestScopeThatWasLostLeavesNothingToTheNext(t *testing.T) {
	needRoot(t, "it acts as others")
	client, b := rawAlice(t, listenAt(t, nil))
	err := b.RunAsClient(func(*Scope) error {
		client.announces(Identification, 1)
		becomesNobody(t, "B", 4294967293, "/proc/self/mem")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	client.announces(Impersonation, 2)
	if err := b.Freeze(); err != nil {
		t.Fatal(err)
	}
	err = b.RunAsClient(func(s *Scope) error { return s.Command("/bin/true").Run() })
	if err != nil {
		t.Errorf("a command in a static scope after one that was lost: %v", err)
	}
}

// TestLossGoesOnThoughTheScopeEnds has the context be lost while B writes on, whose scope ends at the first write that fails.
func TestLossGoesOnThoughTheScopeEnds(t *testing.T) {
	needRoot(t, "it acts as others")
	for range 100 {
		back := listenAt(t, nil)
		client, b := rawAlice(t, listenAt(t, nil))
		var c *Conn
		lost := make(chan (<-chan struct{}), 1)
		left := make(chan error, 1)
		over := make(chan struct{})
		var hop *Conn
		var changed <-chan struct{}
		started := make(chan struct{})
		drained := make(chan struct{})
		broken := make(chan struct{})
		err := b.RunAsClient(func(s *Scope) error {
			hop = must1(Dial(back.Addr().String(), &QoS{Tracking: Dynamic}))
			must1(hop.Write([]byte("x")))
			c = acceptFrom(t, back)
			must1(c.Read(make([]byte, 1)))
			go func() {
				left <- c.RunAsClient(func(s *Scope) error {
					lost <- s.Changed()
					<-over
					return nil
				})
			}()
			changed = <-lost
			go func() {
				defer close(drained)
				for buf := make([]byte, 4096); ; {
					if n, err := c.Read(buf); n == 0 || err != nil {
						return
					}
				}
			}()
			go func() { defer close(broken); <-started; client.say("garbage") }()
			for i := 0; ; i++ {
				if i == 10 {
					close(started)
				}
				if _, err := hop.Write([]byte("y")); err != nil {
					return nil
				}
			}
		})
		if err != nil {
			t.Error(err)
		}
		ok := closed(changed)
		if !ok {
			t.Error("B's scope was lost and has ended, and C's goes on as before")
		}
		close(over)
		<-broken
		if err := <-left; err != nil {
			t.Error(err)
		}
		for begun := time.Now(); ok; runtime.Gosched() {
			// What B wrote last may have come just before.
			err := c.RunAsClient(func(*Scope) error { return nil })
			if errors.Is(err, ErrContextLost) {
				break
			}
			if time.Since(begun) > patience/4 {
				t.Errorf("C's next entry: %v, want ErrContextLost", err)
				ok = false
			}
		}
		hop.Close()
		<-drained
		if !ok {
			return
		}
	}
}
