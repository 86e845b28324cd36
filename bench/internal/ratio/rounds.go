// Package ratio compares things by letting them take turns, and prints what came of it.
package ratio

import (
	"slices"
	"time"
)

// Side is one of the things that are compared. It does its work n times.
type Side func(n int)

// WarmUp is how many rounds at the start do not count.
const WarmUp = 10

// Alternate times the sides in turn, round after round, in one order and then the other, so that whatever slows this machine
// down for a while slows all of them. It returns each side's times per piece of work, by round, in microseconds.
func Alternate(rounds, n int, sides ...Side) [][]float64 {
	times := make([][]float64, len(sides))
	for i := range times {
		times[i] = make([]float64, 0, rounds)
	}
	for round := range rounds + WarmUp {
		for k := range sides {
			i := k
			if round%2 == 1 {
				i = len(sides) - 1 - k
			}
			start := time.Now()
			sides[i](n)
			took := time.Since(start)
			if round >= WarmUp {
				times[i] = append(times[i], float64(took.Nanoseconds())/1e3/float64(n))
			}
		}
	}
	return times
}

// Divide returns a/b, round by round.
func Divide(a, b []float64) []float64 {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i] / b[i]
	}
	return ratios
}

// Subtract returns a-b, round by round.
func Subtract(a, b []float64) []float64 {
	rest := make([]float64, len(a))
	for i := range a {
		rest[i] = a[i] - b[i]
	}
	return rest
}

// Quantile returns the value below which the share q of values lies.
func Quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

func Median(values []float64) float64 { return Quantile(values, 0.5) }
