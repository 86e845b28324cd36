package main

import (
	"fmt"
	"math"
	"time"
)

// lags counts how far operations were behind their client: how long before an operation's start the client had become another one
// than it showed.
type lags struct {
	Operations uint64
	Behind     uint64
	Most       time.Duration
	Buckets    [120]uint64 // of those behind, each a fifth longer than the one before
}

const (
	shortest = float64(time.Microsecond)
	longer   = 1.2
)

func (l *lags) add(lag time.Duration) {
	l.Operations++
	if lag <= 0 {
		return
	}
	l.Behind++
	l.Most = max(l.Most, lag)
	n := int(math.Log(max(1, float64(lag)/shortest)) / math.Log(longer))
	l.Buckets[min(n, len(l.Buckets)-1)]++
}

func (l *lags) join(o *lags) {
	l.Operations += o.Operations
	l.Behind += o.Behind
	l.Most = max(l.Most, o.Most)
	for n := range l.Buckets {
		l.Buckets[n] += o.Buckets[n]
	}
}

// quantile returns what a part of the lags of those behind did not exceed.
func (l *lags) quantile(part float64) time.Duration {
	var seen uint64
	for n, count := range l.Buckets {
		if seen += count; float64(seen) >= part*float64(l.Behind) {
			return min(l.Most, time.Duration(shortest*math.Pow(longer, float64(n+1))))
		}
	}
	return l.Most
}

func (l *lags) String() string {
	if l.Operations == 0 {
		return "no operations"
	}
	return fmt.Sprintf("%7d operations, %4.1f %% behind, those by %v median, %v p99, %v at most",
		l.Operations, 100*float64(l.Behind)/float64(l.Operations), short(l.quantile(0.5)), short(l.quantile(0.99)), short(l.Most))
}

func short(d time.Duration) time.Duration {
	if d > time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}
