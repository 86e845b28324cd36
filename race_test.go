//go:build race

package guise_test

const raceEnabled = true
