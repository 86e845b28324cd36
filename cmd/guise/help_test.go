package main

import (
	"strings"
	"testing"
)

func TestHelpOfWhatIsNotThere(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		out    string // or err, if it fails
	}{
		{"help", 0, "Available Commands"},
		{"help serve", 0, "guise serve [flags] NAME"},
		{"help completion bash", 0, "bash"},
		{"help nosuch", statusUsage, `there is no command "nosuch"`},
		{"help serve nosuch", statusUsage, `there is no command "serve nosuch"`},
		{"nosuch", statusUsage, `there is no command "nosuch"`},
		{"completion bash", 0, "guise"},
		{"completion tcsh", statusUsage, `there is nothing for the shell "tcsh": it takes one of bash,`},
		{"completion", statusUsage, "no shell is named: it takes one of bash,"},
		{"completion --help", 0, "guise completion"},
	} {
		r := run(t, "", guiseProgram(t, strings.Fields(c.args)...))
		said := r.out
		if c.status != 0 {
			said = r.err
		}
		if r.status != c.status || !strings.Contains(said, c.out) {
			t.Errorf("guise %s: exit status %d, want %d and %q: %s%s", c.args, r.status, c.status, c.out, r.out, r.err)
		}
	}
}
