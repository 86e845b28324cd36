package main

import (
	"path/filepath"

	"github.com/guise-project/guise/bench/internal/role"
)

const floodRounds = 800 // in each state

// measureFlood compares the 99th percentile of one client's following while another client of the same server changes as fast as it
// can with that while it does not, and while it is as busy with something else, in turn.
func measureFlood(args []string) error {
	dir := args[0]
	c, err := startChain(dir, byThread, 1, nil)
	if err != nil {
		return err
	}
	defer c.stop()
	flooder, err := role.Start(nil, nil, "flooder", filepath.Join(dir, "hop0"), filepath.Join(dir, "board"))
	if err != nil {
		return err
	}
	defer flooder.Stop()
	if _, err := flooder.Line(); err != nil {
		return err
	}
	var took [flooderStates][]float64
	for round := range flooderStates * floodRounds {
		// In blocks, because the flood takes a moment to begin and to end.
		state := round / 20 % flooderStates
		c.board.flood.Store(int64(state))
		t, err := c.change()
		if err != nil {
			return err
		}
		if round >= flooderStates*20 && round%20 >= 2 {
			took[state] = append(took[state], t[0])
		}
	}
	compared := func(what string, target float64, to int) row {
		unit := quantile(took[to], 0.99)
		return row{
			What: what, AtMost: target, Unit: "µs",
			Median: quantile(took[flooding], 0.99) / unit, Low: quantile(took[flooding], 0.98) / unit, High: quantile(took[flooding], 0.995) / unit,
			Left: quantile(took[flooding], 0.99), Right: unit,
		}
	}
	middle := median(took[quiet])
	return print([]row{
		compared("following while another client floods, p99 : without", 1.5, quiet),
		compared("the same : beside one as busy that changes nothing", information, spinning),
		{
			What: "the same, median : without", AtMost: information, Unit: "µs",
			Median: median(took[flooding]) / middle, Low: quantile(took[flooding], 0.1) / middle, High: quantile(took[flooding], 0.9) / middle,
			Left: median(took[flooding]), Right: middle,
		},
	})
}
