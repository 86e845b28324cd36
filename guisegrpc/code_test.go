package guisegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisegrpc"
)

var codeTests = []struct {
	err  error
	code codes.Code
}{
	{nil, codes.OK},
	{&os.PathError{Op: "open", Err: syscall.EACCES}, codes.PermissionDenied},
	{&os.PathError{Op: "open", Err: syscall.ENOENT}, codes.NotFound},
	{&os.PathError{Op: "open", Err: syscall.ENOTDIR}, codes.NotFound},
	{syscall.ELOOP, codes.PermissionDenied},
	{syscall.EROFS, codes.PermissionDenied},
	{syscall.ENAMETOOLONG, codes.NotFound},
	{os.ErrExist, codes.AlreadyExists},
	{syscall.EDQUOT, codes.ResourceExhausted},
	{&guise.OpError{Op: "impersonate", Err: guise.ErrLevel}, codes.PermissionDenied},
	{&guise.OpError{Op: "impersonate", Err: fmt.Errorf("%w: %w", guise.ErrPrivilege, syscall.EPERM)}, codes.Internal},
	{&guise.OpError{Op: "dial", Err: syscall.EACCES}, codes.PermissionDenied},
	{&guise.OpError{Op: "impersonate", Err: fmt.Errorf("acting as 1: setgroups: %w", syscall.EPERM)}, codes.Internal},
	{guisegrpc.ErrNoPipe, codes.Internal},
	{guisegrpc.ErrDynamic, codes.FailedPrecondition},
	{guisegrpc.ErrInScope, codes.FailedPrecondition},
	{guisegrpc.ErrInterceptor, codes.FailedPrecondition},
	{status.Error(codes.Aborted, "the handler's"), codes.Aborted},
	{fmt.Errorf("waiting: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
	{errors.New("something else"), codes.Unknown},
}

func TestCodeTellsWhoseMistakeItIs(t *testing.T) {
	for _, test := range codeTests {
		t.Run(fmt.Sprint(test.err), func(t *testing.T) {
			if got := guisegrpc.Code(test.err); got != test.code {
				t.Errorf("got %v, want %v", got, test.code)
			}
		})
	}
}
