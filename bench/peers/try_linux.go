package main

import (
	"fmt"

	"github.com/guise-project/guise"
)

// tried is what came of trying a way.
type tried struct {
	Way         string
	Missing     string // why it could not be tried
	ReadsSecret string // whether its server reads for a client what only root can read; "" if that was not asked
}

// try does a few requests in each way.
func (s *stage) try() (all []tried, err error) {
	ways := []way{over(withGuise(guise.Static), nil), over(withGuise(guise.Dynamic), nil)}
	for _, c := range comparisons {
		ways = append(ways, c.way)
	}
	for _, w := range ways {
		t := tried{Way: w.name}
		if err := w.missing(); err != nil {
			t.Missing = err.Error()
			all = append(all, t)
			continue
		}
		r, err := w.start(s)
		if err != nil {
			return nil, err
		}
		r.once(3)
		if r.open != nil {
			r.open(3)
		}
		if r.readsSecret != nil {
			reads, err := r.readsSecret()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			t.ReadsSecret = fmt.Sprint(reads)
		}
		r.stop()
		all = append(all, t)
	}
	return all, nil
}
