package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// pages has guise man write the pages to a directory.
func pages(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "man1")
	run(t, "", guiseProgram(t, "man", dir)).expect(t, "guise man", 0, "")
	return dir
}

func TestMan(t *testing.T) {
	dir := pages(t)
	root := newRootCommand()
	root.InitDefaultCompletionCmd()
	for _, c := range documented(root) {
		b, err := os.ReadFile(filepath.Join(dir, pageName(c)+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		text := string(b)
		for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"} {
			if strings.Count(text, ".SH \""+section+"\"\n") != 1 {
				t.Errorf("%s has no section %s, or more than one", pageName(c), section)
			}
		}
		if c.Example != "" && !strings.Contains(text, ".SH \"EXAMPLES\"\n.nf\n") {
			t.Errorf("%s has no examples", pageName(c))
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(text, roff("--"+f.Name)+`\fR`) {
				t.Errorf("%s does not tell of --%s", pageName(c), f.Name)
			}
		})
		// No line is a request by accident.
		for _, line := range strings.Split(text, "\n") {
			if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !regexp.MustCompile(`^\.(TH .*|SH .*|TP|PP|br|nf|fi)$`).MatchString(line) {
				t.Errorf("%s has the line %q", pageName(c), line)
			}
		}
	}
	serve, err := os.ReadFile(filepath.Join(dir, "guise-serve.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		".SH \"ENVIRONMENT OF COMMAND\"\n", ".TP\n\\fBGUISE_VIA\\fR\n", ".SH \"ENVIRONMENT\"\n.TP\n\\fBGUISE_DIR\\fR\n", ".SH \"SIGNALS\"\n",
		".TP\n\\fB0\\fR\nended by SIGTERM or SIGINT\n.TP\n\\fB1\\fR\n", ".TP\n\\fBHOME, USER, LOGNAME, SHELL\\fR\nof the client\\(aqs account",
		`\fB\-\-max\fR \fIN\fR`, `\fB\-\-grace\fR \fIDURATION\fR`,
	} {
		if !strings.Contains(string(serve), part) {
			t.Errorf("guise-serve.1 has no %q", part)
		}
	}
}

// Neither man(1) nor groff have anything to say against the pages.
func TestManWarnings(t *testing.T) {
	dir := pages(t)
	found, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(found) == 0 {
		t.Fatalf("there are no pages: %v", err)
	}
	for _, c := range []struct {
		program string
		args    []string
	}{
		{"/usr/bin/man", []string{"--warnings", "-E", "UTF-8", "-Tutf8", "-l"}},
		{"/usr/bin/groff", []string{"-man", "-ww", "-Tutf8", "-z"}},
		{"/usr/bin/mandoc", []string{"-Tlint", "-Wwarning"}},
	} {
		t.Run(filepath.Base(c.program), func(t *testing.T) {
			path := needProgram(t, c.program)
			for _, page := range found {
				command := guiseProgram(t)
				command.Env = append(command.Env, "LC_ALL=C.UTF-8", "MANPAGER=cat")
				command.Path, command.Args = path, append(append([]string{path}, c.args...), page)
				if r := run(t, "", command); r.status != 0 || r.err != "" {
					t.Errorf("%s: exit status %d: %s", filepath.Base(page), r.status, r.err)
				}
			}
		})
	}
}

func TestSplitHelp(t *testing.T) {
	sections := splitHelp("One\ntwo: three.\n\nNot a list:\nfour\n\nA list:\n  Some text\n  goes on\n  a  b\n     c\n  d, e\n    f  g\nAfter it.\n\nExit status: 0 if so.")
	want := []helpSection{
		{"", []block{{text: "One two: three."}, {text: "Not a list: four"}}},
		{"A LIST", []block{{text: "Some text goes on"}, {"a", "b c"}, {"d, e", "f  g"}, {text: "After it."}}},
		{"EXIT STATUS", []block{{text: "0 if so."}}},
	}
	if len(sections) != len(want) {
		t.Fatalf("the sections are %q, want %q", sections, want)
	}
	for i := range want {
		if sections[i].title != want[i].title || len(sections[i].blocks) != len(want[i].blocks) {
			t.Errorf("section %d is %q, want %q", i, sections[i], want[i])
			continue
		}
		for j, b := range want[i].blocks {
			if sections[i].blocks[j] != b {
				t.Errorf("block %d of section %d is %q, want %q", j, i, sections[i].blocks[j], b)
			}
		}
	}
	if got, want := roffLine(`.a-b'\"`), `\&.a\-b\(aq\e\(dq`; got != want {
		t.Errorf("a line is written %s, want %s", got, want)
	}
}
