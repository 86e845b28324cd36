package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
)

// caller is whom the server acts as.
var caller = role.IDs{UID: 61020, GID: 61021, Groups: []uint32{61022, 61023, 61024}}

// measureSwitching is the role of a server that compares RunAsClient with the raw calls. Its argument is a directory for its
// pipe.
func measureSwitching(args []string) error {
	l, err := guise.Listen(filepath.Join(args[0], "pipe"), nil)
	if err != nil {
		return err
	}
	defer l.Close()
	static, client, err := role.Connect(l, caller, guise.Static)
	if err != nil {
		return err
	}
	defer client.Stop()
	dynamic, dynamicClient, err := role.Connect(l, caller, guise.Dynamic)
	if err != nil {
		return err
	}
	defer dynamicClient.Stop()

	who := "unprivileged server"
	if os.Geteuid() == 0 {
		who = "root server"
	}
	raw, err := newRawCalls(caller)
	if err != nil {
		return err
	}
	if err := raw.try(); err != nil {
		return err
	}
	const rounds, n = 600, 100
	t := ratio.Alternate(rounds, n, runAs(static), raw.side, raw.withCheck, runAs(dynamic))
	library, calls, checked, followed := t[0], t[1], t[2], t[3]
	check := ratio.Subtract(checked, calls)
	rows := []ratio.Row{
		ratio.Compare("RunAsClient : raw calls, "+who+", without the scheduling check", 1.20, ratio.Subtract(library, check), calls, "µs"),
		ratio.Compare("RunAsClient : raw calls, "+who+", with the scheduling check", ratio.Information, library, calls, "µs"),
		ratio.Compare("RunAsClient : raw calls and the scheduling check, "+who, ratio.Information, library, checked, "µs"),
		ratio.Compare("RunAsClient dynamic : static, "+who, 1.15, followed, library, "µs"),
		{What: "allocations per RunAsClient, " + who, AtMost: 0, Median: max(allocations(runAs(static)), allocations(runAs(dynamic)))},
	}
	return ratio.Print(rows)
}

// runAs is the library's side.
func runAs(c *guise.Conn) ratio.Side {
	nothing := func(*guise.Scope) error { return nil }
	return func(n int) {
		for range n {
			if err := c.RunAsClient(nothing); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
}

// allocations returns how many objects one piece of work allocates.
func allocations(s ratio.Side) float64 {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	const n = 10_000
	s(n) // what is made once
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s(n)
	runtime.ReadMemStats(&after)
	// The runtime itself allocates a handful now and then, which a whole number per call leaves out (as testing.AllocsPerRun).
	return float64((after.Mallocs - before.Mallocs) / n)
}
