package thread

import (
	"errors"
	"syscall"
)

// ErrPrivilege says that this process may not act as somebody else: that takes CAP_SETUID and CAP_SETGID (NT:
// ERROR_PRIVILEGE_NOT_HELD).
var ErrPrivilege = errors.New("acting as another user takes CAP_SETUID and CAP_SETGID")

// ErrChangedMeanwhile says that the program has changed the ids of all its threads in between: look again.
var ErrChangedMeanwhile = errors.New("the ids have changed meanwhile")

// callError is a system call that failed.
type callError struct {
	call  string
	errno syscall.Errno
}

func failed(call string, errno syscall.Errno) error { return &callError{call, errno} }

func (e *callError) Error() string { return e.call + ": " + e.errno.Error() }
func (e *callError) Unwrap() error { return e.errno }

// spoiledError says that a thread is not to be used any more.
type spoiledError struct{ err error }

func (e *spoiledError) Error() string {
	return "a client has changed how this thread is scheduled, and it can't be changed back (that takes CAP_SYS_NICE, or RLIMIT_NICE: LimitNICE=+0 in a unit " +
		"of systemd); the goroutine stays locked to the thread: " + e.err.Error()
}

func (e *spoiledError) Unwrap() error { return e.err }
