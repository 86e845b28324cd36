package guisegrpc

import (
	"errors"
	"io/fs"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/guise-project/guise"
)

// Code returns the code that tells a client of an error of [RunAsClient], or of what was done in its function with files:
// PermissionDenied for what the client may not do or does not let the server do, NotFound, AlreadyExists, ResourceExhausted for a
// full disk or quota, FailedPrecondition for [ErrDynamic] and [ErrInScope], Internal for what is wrong with the server. Of every
// other error it is what status.Code says, so that of an error that has a code it is that one; OK for nil.
func Code(err error) codes.Code {
	for _, c := range errorCodes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return status.Code(err)
}

// errorCodes are in the order in which errors are compared: an ErrPrivilege may wrap an errno of the system's.
var errorCodes = []struct {
	err  error
	code codes.Code
}{
	{nil, codes.OK},
	{ErrDynamic, codes.FailedPrecondition},
	{ErrInScope, codes.FailedPrecondition},
	{ErrNoPipe, codes.Internal},
	{guise.ErrPrivilege, codes.Internal},
	{guise.ErrContextLost, codes.Internal},
	{guise.ErrLevel, codes.PermissionDenied},
	{guise.ErrNotWearable, codes.PermissionDenied},
	{guise.ErrNoDelegation, codes.PermissionDenied},
	{fs.ErrPermission, codes.PermissionDenied},
	{fs.ErrNotExist, codes.NotFound},
	{syscall.ENOTDIR, codes.NotFound},
	{fs.ErrExist, codes.AlreadyExists},
	{syscall.ENOSPC, codes.ResourceExhausted},
	{syscall.EDQUOT, codes.ResourceExhausted},
}

// callError is why a call failed before it was made, or handled.
type callError struct {
	code codes.Code
	err  error
}

func (e *callError) Error() string { return e.err.Error() }

func (e *callError) Unwrap() error { return e.err }

// GRPCStatus is what packages status and grpc ask an error for.
func (e *callError) GRPCStatus() *status.Status { return status.New(e.code, e.err.Error()) }
