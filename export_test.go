package guise

import (
	"time"

	"github.com/guise-project/guise/internal/leftover"
)

func init() {
	// What hears of this process's changes is kept open until the next check.
	leftover.Settle = func() { ownProcess.rest() }
}

// SetProgramGrace sets how long programs have to end, for tests, until the function that it returns is called.
func SetProgramGrace(d time.Duration) (restore func()) {
	old := programGrace
	programGrace = d
	return func() { programGrace = old }
}

// HandshakeTime is how long a listener waits for smbd.
func HandshakeTime() time.Duration { return handshakeTime }

// SetHandshakeTime sets it, before anybody listens, until restore is called.
func SetHandshakeTime(d time.Duration) (restore func()) {
	before := handshakeTime
	handshakeTime = d
	return func() { handshakeTime = before }
}

// The bounds for one machine's clients.
const MostWaitingOne = mostWaitingOne

var MostLingeringOne = lingerers.Each
