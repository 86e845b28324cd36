// Program guise serves and calls named pipes whose servers act as their clients, and shows what this machine has for it.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/guise-project/guise/internal/actor"
)

func main() {
	actor.PlayIfAsked() // a process of the demonstration
	root := newRootCommand()
	command, err := root.ExecuteC()
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", command.CommandPath(), err)
	if what := advice(command, err); what != "" {
		fmt.Fprintf(os.Stderr, "%s\n", what)
	}
	os.Exit(exitStatus(err))
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "guise",
		Short: "Named pipes whose servers act as their clients",
		Long: `guise brings Windows NT's named pipes with client impersonation to Linux: a server accepts a client on a pipe
and acts as that client, with the rights that the kernel gives that client and no others.

A pipe's NAME is of letters, digits, '.', '_' and '-', and lives in /run/guise/pipe (root's) or
$XDG_RUNTIME_DIR/guise/pipe (a user's own); GUISE_DIR replaces both. A NAME with a slash in it is the path of a socket.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 0 {
				return command.Help()
			}
			return &usageError{fmt.Errorf("there is no command %q", args[0])}
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(
		newDemoCommand(),
		newServeCommand(),
		newCallCommand(),
		newLsCommand(),
		newWatchCommand(),
		newWhoamiCommand(),
		newCheckCommand(),
		newManCommand(),
	)
	refuseUnknown(root)
	return root
}

// usage makes the errors of an argument check usage errors.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		if err := check(command, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}
