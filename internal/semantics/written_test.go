package semantics

import (
	"testing"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
)

// TestWrittenAfterAChangeIsActedOnAsChanged has a client change all of its ids and write at once, again and again.
func TestWrittenAfterAChangeIsActedOnAsChanged(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := newStage(t, k)
			x := actor.IDs{UID: 61101, GID: 61201, Groups: []uint32{61301}}
			y := actor.IDs{UID: 61102, GID: 61202, Groups: []uint32{61302}}
			b := actor.IDs{UID: 61110, GID: 61210}
			pipe := s.pipe("b", b)
			pa, pb := s.player("A", x), s.player("B", b)
			pb.must(actor.Order{Act: actor.Listen, Pipe: pipe})
			pa.must(actor.Order{Act: actor.Dial, Pipe: pipe, Conn: "B", QoS: &guise.QoS{Tracking: guise.Dynamic}})
			pb.must(actor.Order{Act: actor.Accept, Pipe: pipe, Conn: "A"})
			pa.write("B")
			pb.read("A")
			wrong := 0
			for i := range 300 {
				to := []actor.IDs{y, x}[i%2]
				pa.must(actor.Order{Act: actor.Become, IDs: to})
				pa.write("B")
				pb.read("A")
				pb.enter("A")
				for range 5 {
					if got := pb.must(actor.Order{Act: actor.Who}).Shown; got.UID != to.UID || got.GID != to.GID {
						wrong++
						t.Logf("round %d: acts as %v, and what was read is of %v", i, got.IDs, to)
					}
				}
				pb.leave()
			}
			if wrong > 0 {
				t.Errorf("%d times another than who wrote", wrong)
			}
		})
	}
}
