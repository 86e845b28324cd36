package main

import (
	"slices"
	"time"
)

// side is one of the things that are compared. It does its work n times.
type side func(n int)

// warmUp is how many rounds at the start do not count.
const warmUp = 10

// alternate times the sides in turn, round after round, in one order and then the other, so that whatever slows this machine
// down for a while slows all of them. It returns each side's times per piece of work, by round, in microseconds.
func alternate(rounds, n int, sides ...side) [][]float64 {
	times := make([][]float64, len(sides))
	for i := range times {
		times[i] = make([]float64, 0, rounds)
	}
	for round := range rounds + warmUp {
		for k := range sides {
			i := k
			if round%2 == 1 {
				i = len(sides) - 1 - k
			}
			start := time.Now()
			sides[i](n)
			took := time.Since(start)
			if round >= warmUp {
				times[i] = append(times[i], float64(took.Nanoseconds())/1e3/float64(n))
			}
		}
	}
	return times
}

// divide returns a/b, round by round.
func divide(a, b []float64) []float64 {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i] / b[i]
	}
	return ratios
}

// subtract returns a-b, round by round.
func subtract(a, b []float64) []float64 {
	rest := make([]float64, len(a))
	for i := range a {
		rest[i] = a[i] - b[i]
	}
	return rest
}

// quantile returns the value below which the share q of values lies.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

func median(values []float64) float64 { return quantile(values, 0.5) }
