package main

import (
	"bufio"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/guise-project/guise"
)

// complete has the shell offer the values of a flag.
func complete(command *cobra.Command, flag string, values ...string) {
	err := command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // there is no such flag
	}
}

// completeGroups has the shell offer groups as the values of flags.
func completeGroups(command *cobra.Command, flags ...string) {
	for _, flag := range flags {
		err := command.RegisterFlagCompletionFunc(flag, func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
			return groupNames(begun), cobra.ShellCompDirectiveNoFileComp
		})
		if err != nil {
			panic(err) // there is no such flag
		}
	}
}

// groupNames returns the local groups that begin so.
func groupNames(begun string) []string {
	f, err := os.Open("/etc/group")
	if err != nil {
		return nil
	}
	defer f.Close()
	var names []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, _, ok := strings.Cut(lines.Text(), ":"); ok && strings.HasPrefix(name, begun) {
			names = append(names, name)
		}
	}
	return names
}

var levelNames = []string{guise.Anonymous.String(), guise.Identification.String(), guise.Impersonation.String(), guise.Delegation.String()}

// completePipes returns the pipes of this machine that begin so, live ones only, or has the shell offer files if that is a path.
func completePipes(wanted func(*pipeReport) bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if strings.Contains(begun, "/") {
			return nil, cobra.ShellCompDirectiveDefault
		}
		pipes, _ := listPipes()
		var names []cobra.Completion
		for _, p := range pipes {
			if !p.Network && p.Server != dead && strings.HasPrefix(p.Name, strings.ToLower(begun)) && wanted(p) {
				names = append(names, cobra.CompletionWithDesc(p.Name, printable(p.Path)))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
