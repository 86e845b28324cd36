package semantics

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/token"
)

// stage is where a test's actors meet.
type stage struct {
	t    *testing.T
	kind kind
	dir  string
}

// kind is what actors are.
type kind struct {
	name  string
	start func(actor.IDs, ...uintptr) (actor.Actor, error)
}

var kinds = []kind{{"processes", actor.Process}, {"goroutines", actor.Goroutine}}

func newStage(t *testing.T, k kind) *stage {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("acting as others takes root")
	}
	dir, err := os.MkdirTemp("", "guise-semantics-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return &stage{t, k, dir}
}

// player is an actor whose failures end the test.
type player struct {
	actor.Actor
	t    *testing.T
	name string
}

func (s *stage) player(name string, ids actor.IDs) *player {
	s.t.Helper()
	a, err := s.kind.start(ids, privileges(ids)...)
	if err != nil {
		s.t.Fatalf("starting %s: %v", name, err)
	}
	s.t.Cleanup(func() {
		if err := a.Stop(); err != nil {
			s.t.Errorf("stopping %s: %v", name, err)
		}
	})
	return &player{a, s.t, name}
}

// privileges are what an actor that is not root needs to act as others, or to become somebody else.
func privileges(ids actor.IDs) []uintptr {
	if ids.UID == 0 {
		return nil
	}
	return []uintptr{token.CapSetuid, token.CapSetgid}
}

// pipe returns the path of a pipe in a directory that belongs to ids.
func (s *stage) pipe(name string, ids actor.IDs) string {
	s.t.Helper()
	dir := filepath.Join(s.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chown(dir, int(ids.UID), int(ids.GID)); err != nil {
		s.t.Fatal(err)
	}
	return filepath.Join(dir, "pipe")
}

func (p *player) must(o actor.Order) actor.Answer {
	p.t.Helper()
	a, err := p.Do(o)
	if err != nil {
		p.t.Fatalf("%s was to %s (%s%s): %v", p.name, o.Act, o.Conn, o.Pipe, err)
	}
	return a
}

func (p *player) write(conn string) {
	p.t.Helper()
	p.must(actor.Order{Act: actor.Write, Conn: conn, Text: "x"})
}

func (p *player) read(conn string) {
	p.t.Helper()
	p.must(actor.Order{Act: actor.Read, Conn: conn})
}

func (p *player) enter(conn string) {
	p.t.Helper()
	p.must(actor.Order{Act: actor.Enter, Conn: conn})
}

func (p *player) leave() {
	p.t.Helper()
	p.must(actor.Order{Act: actor.Leave})
}

// actsAs enters a scope of the connection's client, compares what the kernel shows there with want, and leaves.
func (p *player) actsAs(conn, when string, want actor.Shown) {
	p.t.Helper()
	p.enter(conn)
	got := p.must(actor.Order{Act: actor.Who}).Shown
	p.leave()
	if d := difference(got, want); d != "" {
		p.t.Errorf("%s: %s acts as another than it should: %s", when, p.name, d)
	}
}

// readsAndActsAs does so after reading what the client wrote.
func (p *player) readsAndActsAs(conn, when string, want actor.Shown) {
	p.t.Helper()
	p.read(conn)
	p.actsAs(conn, when, want)
}

// watched is the capability that comes and goes in these tests.
const watched = 1 << 1 // CAP_DAC_OVERRIDE

func difference(got, want actor.Shown) string {
	switch {
	case got.UID != want.UID:
		return fmt.Sprintf("uid is %d, want %d", got.UID, want.UID)
	case got.GID != want.GID:
		return fmt.Sprintf("gid is %d, want %d", got.GID, want.GID)
	case !slices.Equal(got.Groups, want.Groups):
		return fmt.Sprintf("groups are %v, want %v", got.Groups, want.Groups)
	case got.Effective&watched != want.Effective&watched:
		return fmt.Sprintf("CAP_DAC_OVERRIDE in effective capabilities %#x, want it as in %#x", got.Effective, want.Effective)
	case want.UID != 0 && got.Effective != 0:
		return fmt.Sprintf("effective capabilities are %#x, want none", got.Effective)
	}
	return ""
}

// thing is what a client changes.
type thing struct {
	name string
	on   actor.Shown // the client, and with the thing enabled
	off  actor.Shown // changed, or disabled
	b, c actor.IDs   // the servers
}

// itself is B in a scope of its own context: nobody but root brings capabilities into one.
func (th thing) itself() actor.Shown {
	if th.b.UID == 0 {
		return actor.Shown{IDs: th.b, Effective: all}
	}
	return actor.Shown{IDs: th.b}
}

var (
	alice  = actor.IDs{UID: 61101, GID: 61201, Groups: []uint32{61301, 61302}}
	bob    = actor.IDs{UID: 61110, GID: 61210, Groups: []uint32{61310}}
	carol  = actor.IDs{UID: 61120, GID: 61220, Groups: []uint32{61320}}
	rootA  = actor.IDs{UID: 0, GID: 61201, Groups: []uint32{61301}}
	rootB  = actor.IDs{UID: 0, GID: 61210, Groups: []uint32{61310}}
	rootC  = actor.IDs{UID: 0, GID: 61220, Groups: []uint32{61320}}
	all    = ^uint64(0)
	things = []thing{
		{"uid", actor.Shown{IDs: alice}, actor.Shown{IDs: actor.IDs{UID: 61102, GID: alice.GID, Groups: alice.Groups}}, bob, carol},
		{"gid", actor.Shown{IDs: alice}, actor.Shown{IDs: actor.IDs{UID: alice.UID, GID: 61202, Groups: alice.Groups}}, bob, carol},
		{"groups", actor.Shown{IDs: alice}, actor.Shown{IDs: actor.IDs{UID: alice.UID, GID: alice.GID, Groups: []uint32{61301, 61303}}}, bob, carol},
		{"capabilities", actor.Shown{IDs: rootA, Effective: all}, actor.Shown{IDs: rootA, Effective: all &^ watched}, rootB, rootC},
	}
)

// becomes has the player be what is shown, in its own right.
func (p *player) becomes(s actor.Shown) {
	p.t.Helper()
	if s.UID == 0 {
		p.must(actor.Order{Act: actor.Enable, Capabilities: s.Effective})
		return
	}
	p.must(actor.Order{Act: actor.Become, IDs: s.IDs})
}

// wears has the player enter a scope of what is shown.
func (p *player) wears(s actor.Shown) {
	p.t.Helper()
	p.must(actor.Order{Act: actor.RunAs, IDs: s.IDs})
	if s.UID == 0 {
		p.must(actor.Order{Act: actor.Enable, Capabilities: s.Effective})
	}
}

// changesWorn has the player change what it wears, inside its scope.
func (p *player) changesWorn(s actor.Shown) {
	p.t.Helper()
	if s.UID == 0 {
		p.must(actor.Order{Act: actor.Enable, Capabilities: s.Effective})
		return
	}
	p.must(actor.Order{Act: actor.RunAs, IDs: s.IDs})
}
