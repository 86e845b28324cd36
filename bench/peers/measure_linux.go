package main

import (
	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/ratio"
)

// comparison is a way that guise's is measured beside, and what is to be reached.
type comparison struct {
	way
	rounds, n  int
	once, open float64
}

var comparisons = []comparison{
	{over("gRPC", nil), 200, 50, 0.5, 0.5},
	{over("gRPC, answering from memory", nil), 200, 50, ratio.Information, ratio.Information},
	{over("D-Bus, dbus-daemon", startDBusDaemon, "dbus-daemon"), 200, 50, ratio.Information, ratio.Information},
	{over("D-Bus, dbus-broker", startDBusBroker, "dbus-broker"), 200, 50, ratio.Information, ratio.Information},
	{overWine, 200, 50, ratio.Information, ratio.Information},
	{byProgram("sudo", nil, "sudo", "-n", "-u", aliceName), 50, 5, 0.05, ratio.Information},
	{byProgram("runuser", nil, "runuser", "-u", aliceName, "--"), 50, 5, ratio.Information, ratio.Information},
	{byProgram("cat, started with the client's ids", asAlice), 50, 5, ratio.Information, ratio.Information},
	{over("by hand", nil), 200, 50, ratio.Information, ratio.Information},
}

// measure compares guise with each of the other ways.
func (s *stage) measure() (findings, error) {
	var found findings
	for _, tracking := range []guise.Tracking{guise.Static, guise.Dynamic} {
		rows, err := s.compare(tracking)
		if err != nil {
			return found, err
		}
		found.Rows = append(found.Rows, rows...)
	}
	for _, other := range comparisons {
		if err := other.missing(); err != nil {
			found.Missing = append(found.Missing, err.Error())
		}
	}
	return found, nil
}

func (s *stage) compare(tracking guise.Tracking) ([]ratio.Row, error) {
	g, err := over(withGuise(tracking), nil).start(s)
	if err != nil {
		return nil, err
	}
	defer g.stop()
	var once, open []ratio.Row
	for _, other := range comparisons {
		if other.missing() != nil {
			continue
		}
		o, err := other.start(s)
		if err != nil {
			return nil, err
		}
		t := ratio.Alternate(other.rounds, other.n, g.once, o.once)
		once = append(once, ratio.Compare("one-shot, "+withGuise(tracking)+" : "+other.name, other.once, t[0], t[1], "µs"))
		if o.open != nil {
			t := ratio.Alternate(other.rounds, other.n, g.open, o.open)
			open = append(open, ratio.Compare("open connection, "+withGuise(tracking)+" : "+other.name, other.open, t[0], t[1], "µs"))
		}
		o.stop()
	}
	return append(once, open...), nil
}
