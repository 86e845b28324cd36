package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/guise-project/guise/token"
)

func newWhoamiCommand() *cobra.Command {
	asJSON := false
	command := &cobra.Command{
		Use:   "whoami",
		Short: "Show who this process is to a server",
		Long: `Shows the token of this process: its user, its groups with the primary one first, its capabilities if it is root,
and whatever is out of the ordinary. A server that this process calls gets to know the same.`,
		Args: usage(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			self, err := token.Self()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(command.OutOrStdout(), self)
			}
			_, err = fmt.Fprintln(command.OutOrStdout(), self)
			return err
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return command
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
