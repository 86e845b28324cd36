package main

import "sync"

// report is what a server process has seen.
type report struct {
	Scopes, Changes                    uint64 // Changes: that scopes were seen to make
	Files, Opened, Refused             uint64
	Lags, FloodLags                    [hops]lags // FloodLags: of clients that change as fast as they can
	Stalled                            uint64     // operations that were within their bound only because the machine was busy, or not at all
	Untold                             uint64     // operations for which the history did not go back far enough
	DescriptorsBefore, DescriptorsLeft int
	Left                               string // what was left behind, "" if nothing
	Errors, Late                       int

	mu sync.Mutex
}

func (r *report) join(o *report) {
	r.Scopes += o.Scopes
	r.Changes += o.Changes
	r.Files += o.Files
	r.Opened += o.Opened
	r.Refused += o.Refused
	r.Untold += o.Untold
	r.Stalled += o.Stalled
	r.Errors += o.Errors
	r.Late += o.Late
	for n := range r.Lags {
		r.Lags[n].join(&o.Lags[n])
		r.FloodLags[n].join(&o.FloodLags[n])
	}
}
