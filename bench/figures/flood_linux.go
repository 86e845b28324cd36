package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/guise-project/guise/bench/internal/role"
)

const floodRounds = 600 // with the flood, and as many without

// measureFlood compares the 99th percentile of one client's following while another client of the same server changes as fast as it
// can with that while it does not, in turn.
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
	var with, without []float64
	for round := range 2 * (floodRounds + warmUp) {
		// In blocks, because the flood takes a moment to begin and to end.
		flooding := round/20%2 == 1
		c.board.flood.Store(0)
		if flooding {
			c.board.flood.Store(1)
		}
		took, err := c.change()
		if err != nil {
			return err
		}
		switch {
		case round < 2*warmUp || round%20 < 2:
		case flooding:
			with = append(with, took[0])
		default:
			without = append(without, took[0])
		}
	}
	fmt.Fprintf(os.Stderr, "the flooding client changed %d times\n", c.board.changes.Load())
	quiet := quantile(without, 0.99)
	return print([]row{{
		What: "following while another client floods, p99 : without", AtMost: 1.5, Unit: "µs",
		Median: quantile(with, 0.99) / quiet, Low: quantile(with, 0.98) / quiet, High: quantile(with, 0.995) / quiet,
		Left: quantile(with, 0.99), Right: quiet,
	}, {
		What: "the same, median : median", AtMost: information, Unit: "µs",
		Median: median(with) / median(without), Low: quantile(with, 0.1) / median(without), High: quantile(with, 0.9) / median(without),
		Left: median(with), Right: median(without),
	}})
}
