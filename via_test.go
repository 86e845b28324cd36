package guise_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// TestViaNamesTheProcessesOnTheWay has A and B be processes, and C this one.
func TestViaNamesTheProcessesOnTheWay(t *testing.T) {
	needRoot(t)
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	alice := actor.IDs{UID: 61001, GID: 61011, Groups: []uint32{61101}}
	alice2 := actor.IDs{UID: 61021, GID: 61031, Groups: []uint32{61121}}
	for _, test := range []struct {
		name     string
		b        actor.IDs
		switches bool
		programA string // as B sees it
	}{
		{"a root hop", actor.IDs{}, true, program},
		{"a hop that may act as others", actor.IDs{UID: 61002, GID: 61012, Groups: []uint32{61102}}, true, program},
		{"a hop without privileges", alice, false, ""},
	} {
		for _, tracking := range []guise.Tracking{guise.Dynamic, guise.Static} {
			for _, before := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %v, opened before the scope: %v", test.name, tracking, before), func(t *testing.T) {
					if before && tracking == guise.Static {
						t.Skip("C sees B")
					}
					l := listenOn(t, nil)
					var switching []uintptr
					if test.switches && test.b.UID != 0 {
						switching = []uintptr{token.CapSetuid, token.CapSetgid}
					}
					a := startActor(t, actor.Process, "A", alice, token.CapSetuid, token.CapSetgid)
					b := startActor(t, actor.Process, "B", test.b, switching...)
					pidOf := func(a *chainActor) int {
						a.must(actor.Order{Act: actor.Dial, Pipe: l.Addr().String(), Conn: "pid"})
						a.must(actor.Order{Act: actor.Write, Conn: "pid", Text: "x"})
						who, err := accept(t, l).Client()
						if err != nil {
							t.Fatal(err)
						}
						if via := who.Via(); len(via) != 0 {
							t.Errorf("a client that speaks for itself has come by way of %v", via)
						}
						a.must(actor.Order{Act: actor.Close, Conn: "pid"})
						return who.Source().PID
					}
					pidA, pidB := pidOf(a), pidOf(b)

					dir := testdir.Open(t, 0o755)
					chown(t, dir, test.b)
					b.must(actor.Order{Act: actor.Listen, Pipe: dir + "/pipe"})
					a.must(actor.Order{Act: actor.Dial, Pipe: dir + "/pipe", Conn: "B", QoS: dynamic})
					a.must(actor.Order{Act: actor.Write, Conn: "B", Text: "x"})
					b.must(actor.Order{Act: actor.Accept, Pipe: dir + "/pipe", Conn: "A"})
					b.must(actor.Order{Act: actor.Read, Conn: "A"})
					dial := actor.Order{Act: actor.Dial, Pipe: l.Addr().String(), Conn: "C", QoS: &guise.QoS{Tracking: tracking}}
					if before {
						b.must(dial)
					}
					b.must(actor.Order{Act: actor.Enter, Conn: "A"})
					if !before {
						b.must(dial)
					}
					b.must(actor.Order{Act: actor.Write, Conn: "C", Text: "x"})
					server := accept(t, l)
					want := []token.Hop{
						{PID: pidA, UID: alice.UID, GID: alice.GID, Program: test.programA},
						{PID: pidB, UID: test.b.UID, GID: test.b.GID, Program: program},
					}
					if !test.switches {
						want = nil
					}
					check := func(when string, got *token.Token, source int) {
						t.Helper()
						if fmt.Sprint(got.Via()) != fmt.Sprint(want) {
							t.Errorf("%s C's client has come by way of %v, want %v", when, got.Via(), want)
						}
						if got.Source().PID != source {
							t.Errorf("%s C's client is of process %d, want %d (A is %d, B is %d)", when, got.Source().PID, source, pidA, pidB)
						}
					}
					who, err := server.Client()
					if err != nil {
						t.Fatal(err)
					}
					check("at first", who, pidB) // B's thread wore A when it made the socket
					if tracking == guise.Static {
						return
					}
					last := enters(t, server)
					last.becomes("at first", identity(t, alice.UID, alice.GID, alice.Groups...))
					if !test.switches {
						// What B can't follow to is not followed by C either: the scope is lost to both, though B can't be nobody.
						a.must(actor.Order{Act: actor.Become, IDs: alice2})
						last.becomes("behind a hop that can't follow,", identity(t, 4294967293, 4294967293))
						b.stays("without privileges", alice)
						if _, err := b.Do(actor.Order{Act: actor.Write, Conn: "C", Text: "x"}); err == nil {
							t.Error("B writes on in a scope that could not follow its client")
						}
						return
					}
					a.must(actor.Order{Act: actor.Become, IDs: alice2})
					last.becomes("after A has changed", identity(t, alice2.UID, alice2.GID, alice2.Groups...))
					// B passes on what A itself has made.
					check("after A has changed", last.scope.Token(), pidA)
					again, err := server.Client()
					if err != nil {
						t.Fatal(err)
					}
					check("after A has changed, to who asks,", again, pidA)
					b.must(actor.Order{Act: actor.Write, Conn: "C", Text: "x"})
					reads(t, server)
					if again, err = server.Client(); err != nil {
						t.Fatal(err)
					}
					if fmt.Sprint(again.Via()) != fmt.Sprint(want) {
						t.Errorf("after another write C's client has come by way of %v, want %v", again.Via(), want)
					}
				})
			}
		}
	}
}
