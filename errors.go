package guise

import (
	"errors"
	"io"
	"net"

	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// The errors that programs ask for with [errors.Is]. They come wrapped in an [OpError] that says where.
var (
	// ErrNoDataRead: the client has not said anything yet, so the server does not know what it may do (NT:
	// ERROR_CANNOT_IMPERSONATE).
	ErrNoDataRead = errors.New("nothing has come from the client yet; read first, or wait with WaitClient")
	// ErrLevel: the client's impersonation level does not allow it (NT: ERROR_BAD_IMPERSONATION_LEVEL).
	ErrLevel = token.ErrLevel
	// ErrPrivilege: this process may not act as others (NT: ERROR_PRIVILEGE_NOT_HELD).
	ErrPrivilege = thread.ErrPrivilege
	// ErrNotWearable: the client's context is one that is never worn, such as an id that the kernel can't map.
	ErrNotWearable = token.ErrNotWearable
	// ErrContextLost: the client announced a context that could not be proved, or broke the protocol. The connection
	// has ended.
	ErrContextLost = errors.New("the client's context is lost")
	// ErrContextChanged: the client's context changed before the program that was to run as it was started, or while it ran.
	ErrContextChanged = errors.New("the client's context has changed")
	// ErrWrongScope: a write, from outside the scope, on a dynamic connection that was opened in a scope.
	ErrWrongScope = errors.New("this connection belongs to a scope that lasts, and is written to from outside it")
	// ErrMoreData: the message is longer than the buffer; the next read returns the rest (NT: ERROR_MORE_DATA).
	ErrMoreData = errors.New("the message is longer than the buffer; the next read returns the rest")
	// ErrMessageTooLong: a message is longer than can be received, [MaxMessage] bytes, or be sent over the network, 65,535 bytes.
	ErrMessageTooLong = errors.New("a message is too long")
	// ErrScopeEnded: a Scope was used after its function had returned.
	ErrScopeEnded = errors.New("the scope has ended")
	// ErrBadName: this can't be the name or path of a pipe.
	ErrBadName = errors.New("not a pipe's name")
	// ErrNoPipe: no pipe of that name.
	ErrNoPipe = errors.New("there is no pipe of this name")
	// ErrNobodyListens: the pipe's server has gone and left its socket behind.
	ErrNobodyListens = errors.New("nobody listens on this pipe; its server has gone")
	// ErrBusy: the server did not accept the connection in time (NT: ERROR_PIPE_BUSY).
	ErrBusy = errors.New("the pipe's server is busy: it accepts no more connections for now")
	// ErrNoDelegation: a context that came over the network has no credentials to go on with to another machine (NT: a network
	// logon does not delegate).
	ErrNoDelegation = errors.New("this context came over the network, and has no credentials to go on with to another machine")
	// ErrPipeTaken: a live server has that name.
	ErrPipeTaken = errors.New("a live server has this pipe")
)

// OpError is the error of an operation on a pipe.
type OpError struct {
	// Op is what was tried: "listen", "accept", "dial", "read", "write", "flush", "close", "impersonate", "identify",
	// "command" or "watch".
	Op string
	// Pipe is the pipe's name, or path where it was given one; "" where there is none.
	Pipe string
	// Err is what went wrong.
	Err error
}

func (e *OpError) Error() string {
	if e.Pipe == "" {
		return e.Op + ": " + e.Err.Error()
	}
	return e.Op + " " + e.Pipe + ": " + e.Err.Error()
}

// Unwrap returns what went wrong.
func (e *OpError) Unwrap() error { return e.Err }

// Timeout reports whether a deadline passed; with it an OpError is a [net.Error].
func (e *OpError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.Err, &t) && t.Timeout()
}

// Temporary reports whether the same may succeed later.
func (e *OpError) Temporary() bool {
	var t interface{ Temporary() bool }
	return errors.Is(e.Err, ErrBusy) || errors.As(e.Err, &t) && t.Temporary()
}

var _ net.Error = (*OpError)(nil)

// opError wraps err, but for io.EOF, which readers compare with, and a nil error. The net package's own wrapping comes off:
// it would say the same again.
func opError(op, pipe string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if inner, ok := err.(*net.OpError); ok {
		err = inner.Err
	}
	return &OpError{Op: op, Pipe: pipe, Err: err}
}
