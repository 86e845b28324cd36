package thread

import (
	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/token"
)

// SocketpairAfter is SocketpairAs with something that happens once the thread has been looked at. The goroutine has to be locked.
func SocketpairAfter(between func(), t *token.Token) (near, far int, err error) {
	m, err := prepareMoment(t)
	if err != nil {
		return -1, -1, err
	}
	between()
	return m.make(t)
}

// Restoring returns what sched_setattr(2) is given where a thread is as now says and is to be as want says.
func Restoring(want, now unix.SchedAttr) unix.SchedAttr {
	return (&scheduling{attr: want}).attributes(&now)
}

// Sweep looks at all threads now.
func Sweep() { sweep() }

// ForgetStart makes the calling thread one that has the number of another, which has ended.
func ForgetStart() {
	b := *baselineOf(threadID())
	b.started++
	setBaseline(threadID(), &b)
}

func baselineOf(tid int32) *baseline {
	_, b := known(tid)
	return b
}
