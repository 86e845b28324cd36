//go:build !race

package followmodel

const raceEnabled = false
