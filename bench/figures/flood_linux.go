package main

import (
	"path/filepath"

	"github.com/guise-project/guise/bench/internal/ratio"
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
	compared := func(what string, target float64, to int) ratio.Row {
		unit := ratio.Quantile(took[to], 0.99)
		return ratio.Row{
			What: what, AtMost: target, Unit: "µs",
			Median: ratio.Quantile(took[flooding], 0.99) / unit, Low: ratio.Quantile(took[flooding], 0.98) / unit, High: ratio.Quantile(took[flooding], 0.995) / unit,
			Left: ratio.Quantile(took[flooding], 0.99), Right: unit,
		}
	}
	middle := ratio.Median(took[quiet])
	return ratio.Print([]ratio.Row{
		compared("following while another client floods, p99 : without", 1.5, quiet),
		compared("the same : beside one as busy that changes nothing", ratio.Information, spinning),
		{
			What: "the same, median : without", AtMost: ratio.Information, Unit: "µs",
			Median: ratio.Median(took[flooding]) / middle, Low: ratio.Quantile(took[flooding], 0.1) / middle, High: ratio.Quantile(took[flooding], 0.9) / middle,
			Left: ratio.Median(took[flooding]), Right: middle,
		},
	})
}
