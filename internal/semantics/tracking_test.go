package semantics

import (
	"fmt"
	"testing"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/features"
	"github.com/guise-project/guise/internal/actor"
)

// TestTrackingTable has the rows of the table of tracking in docs/semantics.md, which is NT's: the client does something
// between two writes, and the server looks after each.
func TestTrackingTable(t *testing.T) {
	rows := []struct {
		does   string
		before func(a *player, th thing) // what the client is at the open and the first write
		change func(a *player, th thing)
		first  func(th thing) actor.Shown
		second func(th thing) actor.Shown
	}{
		{
			"disables what the token it wears has",
			func(a *player, th thing) { a.wears(th.on) },
			func(a *player, th thing) { a.changesWorn(th.off) },
			func(th thing) actor.Shown { return th.on },
			func(th thing) actor.Shown { return th.off },
		},
		{
			"reverts from a token to itself",
			func(a *player, th thing) { a.wears(th.off) },
			func(a *player, th thing) { a.leave() },
			func(th thing) actor.Shown { return th.off },
			func(th thing) actor.Shown { return th.on },
		},
		{
			"enables what it has itself",
			func(a *player, th thing) { a.becomes(th.off) },
			func(a *player, th thing) { a.becomes(th.on) },
			func(th thing) actor.Shown { return th.off },
			func(th thing) actor.Shown { return th.on },
		},
	}
	for _, k := range kinds {
		for _, th := range things {
			for _, tracking := range []guise.Tracking{guise.Static, guise.Dynamic, guise.TrackingUnstated} {
				for _, message := range []bool{false, true} {
					for _, row := range rows {
						name := fmt.Sprintf("%s/%s/%v/message=%v/client %s", k.name, th.name, tracking, message, row.does)
						t.Run(name, func(t *testing.T) {
							s := newStage(t, k)
							a, b := s.player("A", th.on.IDs), s.player("B", th.b)
							pipe := s.pipe("b", th.b)
							b.must(actor.Order{Act: actor.Listen, Pipe: pipe, Message: message})

							row.before(a, th)
							a.must(actor.Order{Act: actor.Dial, Pipe: pipe, Conn: "B", QoS: &guise.QoS{Tracking: tracking}})
							a.write("B")
							b.must(actor.Order{Act: actor.Accept, Pipe: pipe, Conn: "A"})
							b.readsAndActsAs("A", "1st look", row.first(th))

							row.change(a, th)
							a.write("B")
							want := row.first(th)
							if tracking == guise.Dynamic {
								want = row.second(th)
							}
							b.readsAndActsAs("A", "2nd look", want)
						})
					}
				}
			}
		}
	}
}

// TestTrackingInForce has each listener's default against each statement of a client.
func TestTrackingInForce(t *testing.T) {
	all := []guise.Tracking{guise.TrackingUnstated, guise.Static, guise.Dynamic}
	for _, k := range kinds {
		for _, listener := range all {
			for _, client := range all {
				want := client
				if want == guise.TrackingUnstated {
					want = listener
				}
				if want == guise.TrackingUnstated {
					want = guise.Static
				}
				t.Run(fmt.Sprintf("%s/listener %v, client %v", k.name, listener, client), func(t *testing.T) {
					s := newStage(t, k)
					th := things[0]
					a, b := s.player("A", th.on.IDs), s.player("B", th.b)
					pipe := s.pipe("b", th.b)
					b.must(actor.Order{Act: actor.Listen, Pipe: pipe, Tracking: listener})
					a.must(actor.Order{Act: actor.Dial, Pipe: pipe, Conn: "B", QoS: &guise.QoS{Tracking: client}})
					b.must(actor.Order{Act: actor.Accept, Pipe: pipe, Conn: "A"})
					a.write("B")
					b.readsAndActsAs("A", "at first", th.on)
					for _, p := range []*player{a, b} {
						conn := map[*player]string{a: "B", b: "A"}[p]
						got := p.must(actor.Order{Act: actor.State, Conn: conn}).QoS
						if wantQoS := (guise.QoS{Level: guise.Impersonation, Tracking: want}); got != wantQoS {
							t.Errorf("%s's end says %+v is in force, want %+v", p.name, got, wantQoS)
						}
					}
					a.becomes(th.off)
					a.write("B")
					if want == guise.Dynamic {
						b.readsAndActsAs("A", "after a change", th.off)
					} else {
						b.readsAndActsAs("A", "after a change", th.on)
					}
				})
			}
		}
	}
}

// TestClientThatHasGone has a server act as a client whose process has ended: its last proven context stands. What /proc shows
// of a process that is not there is nothing, so a root client's capabilities go with it if they are followed.
func TestClientThatHasGone(t *testing.T) {
	for _, th := range things {
		for _, tracking := range []guise.Tracking{guise.Static, guise.Dynamic} {
			t.Run(fmt.Sprintf("%s/%v", th.name, tracking), func(t *testing.T) {
				s := newStage(t, kinds[0])
				b := s.player("B", th.b)
				pipe := s.pipe("b", th.b)
				b.must(actor.Order{Act: actor.Listen, Pipe: pipe})
				process, err := actor.Process(th.on.IDs, privileges(th.on.IDs)...)
				if err != nil {
					t.Fatal(err)
				}
				a := &player{process, t, "A"}
				a.must(actor.Order{Act: actor.Dial, Pipe: pipe, Conn: "B", QoS: &guise.QoS{Tracking: tracking}})
				a.write("B")
				b.must(actor.Order{Act: actor.Accept, Pipe: pipe, Conn: "A"})
				b.readsAndActsAs("A", "at first", th.on)
				a.becomes(th.off)
				a.write("B")
				b.read("A")
				if err := a.Stop(); err != nil {
					t.Fatal(err)
				}
				want := th.on
				if tracking == guise.Dynamic {
					want = th.off
					if want.UID == 0 {
						want.Effective = 0
					}
				}
				b.actsAs("A", "after the client ended", want)
			})
		}
	}
}

// TestCapabilitiesThatAreNotAnnouncedAreNotHad has a root client say that it has given something up, and take it back without a
// word: what /proc shows then never counts for more than what the client has said.
func TestCapabilitiesThatAreNotAnnouncedAreNotHad(t *testing.T) {
	th := things[len(things)-1]
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := newStage(t, k)
			a, b := s.player("A", th.on.IDs), s.player("B", th.b)
			pipe := s.pipe("b", th.b)
			b.must(actor.Order{Act: actor.Listen, Pipe: pipe})
			a.must(actor.Order{Act: actor.Dial, Pipe: pipe, Conn: "B", QoS: &guise.QoS{Tracking: guise.Dynamic}})
			a.write("B")
			b.must(actor.Order{Act: actor.Accept, Pipe: pipe, Conn: "A"})
			b.readsAndActsAs("A", "at first", th.on)
			a.becomes(th.off)
			a.write("B")
			b.readsAndActsAs("A", "after it gave the capability up", th.off)
			a.becomes(th.on)
			if features.ProcessEvents.Err() == nil { // or looks, every 10 ms, find it and say so
				b.actsAs("A", "after it took it back, before it said so", th.off)
			}
			a.write("B")
			b.readsAndActsAs("A", "after it said so", th.on)
		})
	}
}
