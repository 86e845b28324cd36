package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// logFlag is a flag's format of a log; "" is unstated.
type logFlag string

var logFormats = []string{"text", "json", "journal"}

func (f *logFlag) String() string { return string(*f) }
func (f *logFlag) Type() string   { return "FORMAT" }

func (f *logFlag) Set(s string) error {
	if !slices.Contains(logFormats, s) {
		return fmt.Errorf("%q is no format of the log; it can be %s", s, strings.Join(logFormats, ", "))
	}
	*f = logFlag(s)
	return nil
}

var errNoJournal = errors.New("there is no journal on this machine (/run/systemd/journal/socket): take --log text or --log json")

// logger returns a logger in the format.
func (f logFlag) logger() (*slog.Logger, error) {
	if f == "" {
		f = "text"
		// An error is a JOURNAL_STREAM that is none.
		if streams, _ := journal.StderrIsJournalStream(); streams && journal.Enabled() {
			f = "journal"
		}
	}
	switch f {
	case "journal":
		if !journal.Enabled() {
			return nil, errNoJournal
		}
		return slog.New(&journalHandler{}), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: inSeconds})), nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)), nil
}

// inSeconds shows durations as numbers of seconds.
func inSeconds(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.Float64Value(a.Value.Duration().Seconds())
	}
	return a
}
