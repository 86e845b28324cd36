package main

import (
	"errors"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/announce"
)

// advice says what a person can do about err, "" if err says it all.
func advice(command *cobra.Command, err error) string {
	var usage *usageError
	var operation *guise.OpError
	switch {
	case errors.As(err, &usage):
		return "See " + command.CommandPath() + " --help."
	case errors.As(err, &operation) && onNetwork(operation.Pipe) && !timedOut(err):
		return "" // the error says it all
	case errors.Is(err, errNoGroup):
		return "getent group shows the groups there are."
	case errors.Is(err, guise.ErrNoPipe):
		return "Start its server, or look at GUISE_DIR and XDG_RUNTIME_DIR if it runs already; guise ls shows the pipes there are."
	case errors.Is(err, guise.ErrNobodyListens):
		return "Start its server again; it replaces the socket that was left behind."
	case errors.Is(err, guise.ErrNotWatched):
		return "guise serve lets itself be watched unless it is told --no-watch or gets its socket from systemd; other programs set ListenConfig.Watch."
	case errors.Is(err, guise.ErrBusy), errors.Is(err, announce.RefusedBusy):
		return "Try again later, or with a longer --timeout."
	case timedOut(err):
		return "Give it more time with --timeout, or look at what the server is waiting for."
	case errors.Is(err, errServerUntrusted):
		return "Nothing was sent. If that is the right server after all, give its uid."
	case errors.Is(err, guise.ErrPipeTaken):
		return "Stop that server first, or take another name."
	case !errors.As(err, &operation) || !errors.Is(err, fs.ErrPermission):
		return ""
	case operation.Op == "listen":
		return "Give a path in a directory of this user's own, or have systemd make the socket; guise check shows where names go."
	case operation.Op == "watch":
		return "Watch as one of these; guise whoami shows who this is."
	case operation.Op == "dial":
		return "See whether the socket's mode, its group and its directory let this user (guise whoami) in."
	}
	return ""
}
