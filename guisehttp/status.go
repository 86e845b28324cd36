package guisehttp

import (
	"errors"
	"io/fs"
	"net/http"
	"syscall"

	"github.com/guise-project/guise"
)

// Status returns the HTTP status that tells a client of an error of [RunAsClient], or of what was done in its function with files:
// 403 for what the client may not do or does not let the server do, 421 for [ErrDynamic], 404, 409 for what exists already,
// 507 for a full disk or quota, and 500 for everything else. For nil it is 200.
func Status(err error) int {
	if status, ok := find(err, scopeStatuses); ok {
		return status
	}
	var op *guise.OpError
	if errors.As(err, &op) && op.Op == "impersonate" { // it is the server that was not let do something
		return http.StatusInternalServerError
	}
	if status, ok := find(err, fileStatuses); ok {
		return status
	}
	return http.StatusInternalServerError
}

type statusOf struct {
	err    error
	status int
}

func find(err error, among []statusOf) (status int, ok bool) {
	for _, s := range among {
		if errors.Is(err, s.err) {
			return s.status, true
		}
	}
	return 0, false
}

// scopeStatuses come first: an ErrPrivilege may wrap an errno of the system's.
var scopeStatuses = []statusOf{
	{nil, http.StatusOK},
	{ErrDynamic, http.StatusMisdirectedRequest}, // may be tried again on another connection, says RFC 9110
	{ErrNoPipe, http.StatusInternalServerError},
	{guise.ErrPrivilege, http.StatusInternalServerError},
	{guise.ErrContextLost, http.StatusInternalServerError},
	{guise.ErrLevel, http.StatusForbidden},
	{guise.ErrNotWearable, http.StatusForbidden},
	{guise.ErrNoDelegation, http.StatusForbidden},
}

var fileStatuses = []statusOf{
	{fs.ErrPermission, http.StatusForbidden},
	{syscall.ELOOP, http.StatusForbidden},
	{syscall.EROFS, http.StatusForbidden},
	{fs.ErrNotExist, http.StatusNotFound},
	{syscall.ENOTDIR, http.StatusNotFound},
	{syscall.ENAMETOOLONG, http.StatusNotFound},
	{fs.ErrExist, http.StatusConflict},
	{syscall.EISDIR, http.StatusConflict},
	{syscall.ENOSPC, http.StatusInsufficientStorage},
	{syscall.EDQUOT, http.StatusInsufficientStorage},
}
