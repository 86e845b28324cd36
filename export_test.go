package guise

import "time"

// SetProgramGrace sets how long programs have to end, for tests, until the function that it returns is called.
func SetProgramGrace(d time.Duration) (restore func()) {
	old := programGrace
	programGrace = d
	return func() { programGrace = old }
}
