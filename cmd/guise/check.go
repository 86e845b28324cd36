package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/features"
	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/token"
)

// report is what guise check found out.
type report struct {
	Kernel          string          `json:"kernel"`
	Features        []featureReport `json:"features"`
	User            *token.Token    `json:"user"`
	ActAsOthers     bool            `json:"actAsOthers"`
	DynamicTracking bool            `json:"dynamicTracking"`
	Directory       string          `json:"directory,omitempty"`
	NoDirectory     string          `json:"noDirectory,omitempty"`
}

type featureReport struct {
	Name    string `json:"name"`
	There   bool   `json:"there"`
	Since   string `json:"since,omitempty"`
	Takes   string `json:"takes,omitempty"`
	Use     string `json:"use"`
	Without string `json:"without"`
	Error   string `json:"error,omitempty"`
}

var errIncomplete = errors.New("not everything that guise can use is there")

func newCheckCommand() *cobra.Command {
	asJSON := false
	command := &cobra.Command{
		Use:   "check",
		Short: "Show what this machine and this user have for guise",
		Long: `Tries each facility that guise uses and shows which are there, which Linux brought them and what that means; then what
this user can do. Some take more than a kernel: where this process can't have them, in a container for instance, the reason is shown,
and what guise does without.

Exit status:
  0  everything is there
  1  something is missing, or could not be tried
  2  the command line is wrong
What this user may do has no part in it: calling pipes takes no privilege.`,
		Args: usage(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			r, err := check()
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(command.OutOrStdout(), r)
			} else {
				err = r.print(command.OutOrStdout())
			}
			if err != nil {
				return err
			}
			return r.missing()
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return command
}

func check() (*report, error) {
	self, err := token.Self()
	if err != nil {
		return nil, err
	}
	r := &report{Kernel: features.Kernel(), User: self, DynamicTracking: features.DynamicTracking() == nil}
	for _, f := range features.All() {
		one := featureReport{Name: f.Name, Since: f.Since, Takes: f.Takes, Use: f.Use, Without: f.Without}
		if err := f.Err(); err != nil {
			one.Error = err.Error()
		} else {
			one.There = true
		}
		r.Features = append(r.Features, one)
	}
	if r.ActAsOthers, err = canActAsOthers(); err != nil {
		return nil, err
	}
	if r.Directory, err = guise.Directory(); err != nil {
		r.NoDirectory = err.Error()
	}
	return r, nil
}

// canActAsOthers reports whether this process has what it takes to wear another's token.
func canActAsOthers() (bool, error) {
	sets, e := capability.Get()
	if e != 0 {
		return false, os.NewSyscallError("capget", e)
	}
	return sets.Effective.Has(token.CapSetuid) && sets.Effective.Has(token.CapSetgid), nil
}

func (r *report) missing() error {
	for _, f := range r.Features {
		if !f.There {
			return fmt.Errorf("%w: %s", errIncomplete, f.Error)
		}
	}
	return nil
}

func (r *report) print(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "Linux %s\n\n", r.Kernel)
	fmt.Fprintln(t, "FEATURE\tTHERE\tSINCE\tWHAT THAT MEANS")
	for _, f := range r.Features {
		there, since, means := "yes", f.Since, f.Use
		if since == "" {
			since = "-" // it is not a matter of the kernel's version
		}
		if !f.There {
			there, means = "no", "without it: "+f.Without+" ("+f.Error+")"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.Name, there, since, means)
	}
	fmt.Fprintf(t, "\n%s\n\n", r.User)
	fmt.Fprintln(t, "THIS USER CAN\t\tWHAT THAT MEANS")
	for _, row := range r.rights() {
		fmt.Fprintf(t, "%s\t%s\t%s\n", row.what, row.can, row.means)
	}
	return t.Flush()
}

type right struct{ what, can, means string }

func (r *report) rights() []right {
	act := right{"act as its clients", "yes", "CAP_SETUID and CAP_SETGID are held"}
	if !r.ActAsOthers {
		act = right{act.what, "no", "CAP_SETUID and CAP_SETGID are not both held: a server can tell who its clients are, and act only as those whose context is its own"}
	}
	dynamic := right{"follow its clients", "yes", "dynamic tracking: this kernel can prove a client's changes"}
	if !r.DynamicTracking {
		dynamic = right{dynamic.what, "no", "all tracking is static"}
	}
	listen := right{"listen on names", "yes", "its pipes are in " + r.Directory}
	if r.NoDirectory != "" {
		listen = right{listen.what, "no", r.NoDirectory}
	}
	return []right{act, dynamic, listen}
}
