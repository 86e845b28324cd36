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
// full disk or quota, FailedPrecondition for [ErrDynamic], [ErrInScope] and [ErrInterceptor], Internal for what is wrong with the
// server. Every other error has the code with which gRPC would send it: its own, Canceled or DeadlineExceeded of a context's, Unknown;
// nil has OK.
func Code(err error) codes.Code {
	if code, ok := find(err, scopeCodes); ok {
		return code
	}
	var op *guise.OpError
	if errors.As(err, &op) && op.Op == "impersonate" { // it is the server that was not let do something
		return codes.Internal
	}
	if code, ok := find(err, fileCodes); ok {
		return code
	}
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}

type codeOf struct {
	err  error
	code codes.Code
}

func find(err error, among []codeOf) (code codes.Code, ok bool) {
	for _, c := range among {
		if errors.Is(err, c.err) {
			return c.code, true
		}
	}
	return codes.Unknown, false
}

// scopeCodes come first: an ErrPrivilege may wrap an errno of the system's.
var scopeCodes = []codeOf{
	{nil, codes.OK},
	{ErrDynamic, codes.FailedPrecondition},
	{ErrInScope, codes.FailedPrecondition},
	{ErrInterceptor, codes.FailedPrecondition},
	{ErrNoPipe, codes.Internal},
	{guise.ErrPrivilege, codes.Internal},
	{guise.ErrContextLost, codes.Internal},
	{guise.ErrLevel, codes.PermissionDenied},
	{guise.ErrNotWearable, codes.PermissionDenied},
	{guise.ErrNoDelegation, codes.PermissionDenied},
}

var fileCodes = []codeOf{
	{fs.ErrPermission, codes.PermissionDenied},
	{syscall.ELOOP, codes.PermissionDenied},
	{syscall.EROFS, codes.PermissionDenied},
	{fs.ErrNotExist, codes.NotFound},
	{syscall.ENOTDIR, codes.NotFound},
	{syscall.ENAMETOOLONG, codes.NotFound},
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
