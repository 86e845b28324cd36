package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages of these commands to a directory",
		Long:   `Writes a manual page for each command to DIR, which is made if it isn't there: guise.1, guise-serve.1 and so on.`,
		Hidden: true,
		Args:   usage(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			for _, c := range documented(command.Root()) {
				path := filepath.Join(args[0], pageName(c)+".1")
				if err := os.WriteFile(path, []byte(manualPage(c)), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// documented returns the commands that have a manual page, root first.
func documented(root *cobra.Command) []*cobra.Command {
	commands := []*cobra.Command{root}
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			commands = append(commands, c)
		}
	}
	return commands
}

// pageName returns guise-serve for guise serve.
func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manualPage returns a command's page, of what its help says.
func manualPage(c *cobra.Command) string {
	var p page
	p.line(`.TH "%s" "1" "" "guise" "guise"`, roff(strings.ToUpper(pageName(c))))
	p.section("NAME")
	p.line(`%s \- %s`, roff(pageName(c)), roff(lowerFirst(c.Short)))
	p.section("SYNOPSIS")
	rest := strings.TrimPrefix(c.UseLine(), c.CommandPath())
	p.line(`\fB%s\fR%s`, roff(c.CommandPath()), roff(rest))
	if c.HasAvailableSubCommands() {
		p.line(".br\n\\fB%s\\fR COMMAND", roff(c.CommandPath()))
	}

	sections := splitHelp(c.Long)
	p.section("DESCRIPTION")
	p.blocks(sections[0].blocks)
	if c.HasAvailableSubCommands() {
		p.section("COMMANDS")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				p.item(sub.Name(), sub.Short+".")
			}
		}
	}
	p.options(c)
	hasStatus, hasEnvironment := false, false
	for _, s := range sections[1:] {
		hasStatus = hasStatus || s.title == "EXIT STATUS"
		hasEnvironment = hasEnvironment || s.title == "ENVIRONMENT"
		p.section(s.title)
		p.blocks(s.blocks)
	}
	if !hasStatus {
		p.section("EXIT STATUS")
		p.item("0", "it was done")
		p.item("1", "it failed")
		p.item("2", "the command line is wrong")
	}
	if !hasEnvironment && slices.Contains([]string{"guise", "serve", "call", "ls", "watch", "check"}, c.Name()) {
		p.section("ENVIRONMENT")
		p.item("GUISE_DIR", "the directory of the pipes that have names, in the place of all others")
		p.item("XDG_RUNTIME_DIR", "guise/pipe in this directory, if it is the user's own, has the user's own pipes")
	}
	if c.Example != "" {
		p.section("EXAMPLES")
		p.line(".nf")
		for _, line := range strings.Split(c.Example, "\n") {
			p.text(line)
		}
		p.line(".fi")
	}
	p.section("SEE ALSO")
	p.line("%s", strings.Join(seeAlso(c), ",\n"))
	return p.String()
}

// options writes a section of the command's flags.
func (p *page) options(c *cobra.Command) {
	c.InitDefaultHelpFlag()
	var items []func()
	c.NonInheritedFlags().VisitAll(func(f *flag) {
		if f.Hidden {
			return
		}
		value, usage := unquoteUsage(f)
		name := `\fB` + roff("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			name = `\fB` + roff("-"+f.Shorthand) + `\fR, ` + name
		}
		if value != "" {
			name += ` \fI` + roff(value) + `\fR`
		}
		if !slices.Contains([]string{"", "0", "0s", "false", "[]"}, f.DefValue) {
			usage += " (default " + f.DefValue + ")"
		}
		items = append(items, func() {
			p.line(".TP\n%s", name)
			p.text(usage)
		})
	})
	if len(items) == 0 {
		return
	}
	p.section("OPTIONS")
	for _, write := range items {
		write()
	}
}

// seeAlso returns the other pages, as roff.
func seeAlso(c *cobra.Command) []string {
	var pages []string
	for _, other := range documented(c.Root()) {
		if other != c {
			pages = append(pages, fmt.Sprintf(`\fB%s\fR(1)`, roff(pageName(other))))
		}
	}
	more := []string{"unix(7)", "credentials(7)"}
	if c.Name() == "serve" {
		more = append(more, "systemd.service(5)", "systemd.socket(5)", "sd_notify(3)", "systemd-journald.service(8)", "smbd(8)")
	}
	for _, m := range more {
		name, section, _ := strings.Cut(m, "(")
		pages = append(pages, fmt.Sprintf(`\fB%s\fR(%s`, roff(name), section))
	}
	return pages
}
