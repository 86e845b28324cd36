package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// refuseUnknown has the commands that the cobra package makes say so where they are asked about something that is not there. By themselves they show
// other help, and that as a success.
func refuseUnknown(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, command := range root.Commands() {
		switch command.Name() {
		case "help":
			command.Args = func(_ *cobra.Command, args []string) error {
				if _, rest, err := root.Find(args); err != nil || len(rest) > 0 {
					return &usageError{fmt.Errorf("there is no command %q", strings.Join(args, " "))}
				}
				return nil
			}
		case "completion":
			command.Args = cobra.ArbitraryArgs
			command.RunE = func(_ *cobra.Command, args []string) error {
				var shells []string
				for _, shell := range command.Commands() {
					shells = append(shells, shell.Name())
				}
				which := "no shell is named"
				if len(args) > 0 {
					which = fmt.Sprintf("there is nothing for the shell %q", strings.Join(args, " "))
				}
				return &usageError{fmt.Errorf("%s: it takes one of %s", which, strings.Join(shells, ", "))}
			}
		}
	}
}
