package main

import "github.com/guise-project/guise/bench/internal/ratio"

const unheardRounds = 200

// measureUnheard measures how long following takes where the client has no process connector: in a network namespace of its own.
func measureUnheard(args []string) error {
	c, err := startChain(args[0], byThread, 1, inNetworkNamespace)
	if err != nil {
		return err
	}
	defer c.stop()
	var took []float64
	for range unheardRounds {
		t, err := c.change()
		if err != nil {
			return err
		}
		took = append(took, t[0]/1e3)
	}
	return ratio.Print([]ratio.Row{
		{What: "without the process connector, milliseconds, p99", AtMost: 20, Median: ratio.Quantile(took, 0.99)},
		{What: "without the process connector, milliseconds, median", AtMost: ratio.Information, Median: ratio.Median(took)},
	})
}
