//go:build race

package thread_test

// raceEnabled says that everything is slow.
const raceEnabled = true
