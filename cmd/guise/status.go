package main

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/smb"
)

// The exit statuses. The help of each command lists those that it has.
const (
	statusFailed    = 1
	statusUsage     = 2
	statusNoPipe    = 3
	statusBusy      = 4
	statusRefused   = 5
	statusUntrusted = 6
	statusNetwork   = 7
	statusUnproved  = 8
)

// usageError is a command line that can't be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// errServerUntrusted: the server is not who the caller said it has to be.
var errServerUntrusted = errors.New("it is not the one to be trusted")

// errEndedEarly: the server closed the pipe before it had read everything.
var errEndedEarly = errors.New("the server closed the pipe before it had read all of the input")

func exitStatus(err error) int {
	var usage *usageError
	switch {
	case errors.As(err, &usage), errors.Is(err, guise.ErrBadName):
		return statusUsage
	case errors.Is(err, guise.ErrNoPipe), errors.Is(err, guise.ErrNobodyListens), errors.Is(err, guise.ErrNotWatched):
		return statusNoPipe
	case errors.Is(err, smb.ErrUnreachable), errors.Is(err, smb.ErrCut):
		return statusNetwork
	case unproved(err):
		return statusUnproved
	case errors.Is(err, guise.ErrBusy), errors.Is(err, announce.RefusedBusy), timedOut(err):
		return statusBusy
	case errors.Is(err, errServerUntrusted):
		return statusUntrusted
	case refused(err):
		return statusRefused
	}
	return statusFailed
}

// unproved reports whether err says that the caller could not be proved to another machine.
func unproved(err error) bool {
	for _, why := range []error{
		smb.ErrNoTicket, smb.ErrTicketExpired, smb.ErrClock, smb.ErrPrincipal, smb.ErrNoKDC, smb.ErrConfig, smb.ErrLogon, guise.ErrNoDelegation,
	} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// refused reports whether err says that the server, or the mode of its socket, does not let this client in.
func refused(err error) bool {
	var refusal announce.Refusal
	if errors.As(err, &refusal) || errors.Is(err, smb.ErrAccess) {
		return true
	}
	var operation *guise.OpError
	if !errors.As(err, &operation) || operation.Op != "dial" && operation.Op != "watch" {
		return false
	}
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}
