package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/journal"
)

// journalHandler writes to systemd's journal, by its native protocol: each attribute is a field, GUISE_ and its name, and in the message too.
type journalHandler struct {
	fields []field
	prefix string // of the groups
}

// field is an attribute in words.
type field struct{ name, value string }

func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (h *journalHandler) WithAttrs(attributes []slog.Attr) slog.Handler {
	with := &journalHandler{fields: slices.Clone(h.fields), prefix: h.prefix}
	for _, a := range attributes {
		with.fields = appendFields(with.fields, with.prefix, a)
	}
	return with
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{fields: h.fields, prefix: h.prefix + name + "."}
}

func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	fields := slices.Clone(h.fields)
	r.Attrs(func(a slog.Attr) bool {
		fields = appendFields(fields, h.prefix, a)
		return true
	})
	message := r.Message
	entry := map[string]string{"SYSLOG_IDENTIFIER": "guise"}
	for _, f := range fields {
		message += " " + f.name + "=" + quoteUnlessPlain(f.value)
		entry[journalName(f.name)] = f.value
	}
	err := journal.Send(message, journalPriority(r.Level), entry)
	if err != nil { // journald may be away for a moment
		fmt.Fprintln(os.Stderr, message)
	}
	return err
}

func appendFields(fields []field, prefix string, a slog.Attr) []field {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range value.Group() {
			fields = appendFields(fields, prefix, member)
		}
		return fields
	}
	if a.Equal(slog.Attr{}) {
		return fields
	}
	return append(fields, field{prefix + a.Key, value.String()})
}

// journalName returns a field's name: GUISE_QOS_EFFECTIVE_ONLY for qos.effectiveOnly.
func journalName(name string) string {
	var b strings.Builder
	b.WriteString("GUISE_")
	for _, r := range name {
		switch {
		case 'A' <= r && r <= 'Z':
			b.WriteByte('_')
			b.WriteRune(r)
		case 'a' <= r && r <= 'z' || '0' <= r && r <= '9':
			b.WriteRune(unicode.ToUpper(r))
		default:
			b.WriteByte('_')
		}
	}
	return b.String()
}

func quoteUnlessPlain(s string) string {
	plain := s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r == ' ' || r == '"' || r == '=' || !unicode.IsPrint(r) })
	if plain {
		return s
	}
	return strconv.Quote(s)
}

func journalPriority(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	}
	return journal.PriInfo
}
