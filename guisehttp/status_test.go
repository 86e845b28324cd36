package guisehttp_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisehttp"
)

func TestStatusTellsWhoseMistakeItIs(t *testing.T) {
	path := func(err error) error { return &fs.PathError{Op: "open", Path: "/x", Err: err} }
	for _, test := range []struct {
		err    error
		status int
	}{
		{nil, 200},
		{path(syscall.EACCES), 403},
		{path(syscall.EPERM), 403},
		{path(syscall.ENOENT), 404},
		{path(syscall.ENOTDIR), 404},
		{os.ErrExist, 409},
		{path(syscall.EISDIR), 409},
		{path(syscall.ENOSPC), 507},
		{path(syscall.EDQUOT), 507},
		{path(syscall.ELOOP), 403},
		{path(syscall.EROFS), 403},
		{path(syscall.ENAMETOOLONG), 404},
		{&guise.OpError{Op: "dial", Err: syscall.EACCES}, 403},
		{&guise.OpError{Op: "impersonate", Err: fmt.Errorf("acting as 1: setgroups: %w", syscall.EPERM)}, 500},
		{path(syscall.EIO), 500},
		{fmt.Errorf("the pipe: %w", guisehttp.ErrDynamic), 421},
		{guisehttp.ErrNoPipe, 500},
		{&guise.OpError{Op: "impersonate", Err: guise.ErrLevel}, 403},
		{&guise.OpError{Op: "impersonate", Err: guise.ErrNotWearable}, 403},
		{&guise.OpError{Op: "dial", Err: guise.ErrNoDelegation}, 403},
		{&guise.OpError{Op: "impersonate", Err: fmt.Errorf("%w: %w", guise.ErrPrivilege, syscall.EPERM)}, 500},
		{&guise.OpError{Op: "impersonate", Err: fmt.Errorf("%w: %w", guise.ErrContextLost, syscall.EPERM)}, 500},
		{errors.New("something else"), 500},
	} {
		t.Run(fmt.Sprint(test.err), func(t *testing.T) {
			if got := guisehttp.Status(test.err); got != test.status {
				t.Errorf("got %d, want %d", got, test.status)
			}
		})
	}
}
