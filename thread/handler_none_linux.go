//go:build !amd64 && !arm64

package thread

import (
	"errors"
	"syscall"
)

// The handler is assembly, and there is none for this architecture.

var errNoHandler = errors.New("there is no signal handler for this architecture; there is one for amd64 and arm64")

func installHandler() error { return errNoHandler }

func tryHandler() error { return errNoHandler }

func handlerInPlace() error { return errNoHandler }

func signalThread(int32, uint32) syscall.Errno { return syscall.ENOSYS }
