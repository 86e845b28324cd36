package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/crossing"
	"github.com/guise-project/guise/internal/machines"
)

// The demonstration's goroutines change the ids of threads that end with them. The runtime never ends the first one, so the main
// goroutine keeps it.
func init() { runtime.LockOSThread() }

// errNotAsClaimed: the kernel showed something else than the demonstration claimed.
var errNotAsClaimed = errors.New("not everything was as claimed")

func newDemoCommand() *cobra.Command {
	var threads, processes, between bool
	command := &cobra.Command{
		Use:   "demo",
		Short: "Show KB 101378 on this machine: static and dynamic tracking through a chain of servers",
		Long: `Plays Microsoft's KB 101378 (Security Context Tracking During Impersonation) on this machine. A calls B through a pipe, B
acts as A and calls C through another, and C acts as whom B acts as. A changes its ids, B reverts, A goes away; after
each step the servers make a file and try to read everybody's private files, and what the kernel made of that is shown. At last
A changes while B and C are in the middle of something, and their rights change under their feet.

A, B and C are three processes with ids of their own, and then three goroutines of one process. None of them is root: B and C
hold CAP_SETUID and CAP_SETGID and nothing else. The ids need no accounts. Nothing is left behind.

Without root it shows what a user can do alone.

With --machines it shows what becomes of such a chain between machines instead. It makes three of this one, out of namespaces, each
with its own network, accounts and Samba server, one with a Kerberos KDC; A, B and C are on one, two or three of them. It takes root
and programs of Debian's packages samba, krb5-kdc, krb5-admin-server and krb5-user, and says which are missing. Nothing of this
machine is changed, and nothing is left behind.

Exit status: 0 if everything was as claimed, 1 if not.`,
		Args: usage(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			if between && (processes || threads) {
				return &usageError{errors.New("between machines A, B and C are processes: --machines goes with neither --processes nor --threads")}
			}
			if between {
				if err := machines.Missing(); err != nil {
					return err
				}
			} else if os.Geteuid() != 0 {
				return userDemo(command.OutOrStdout())
			}
			// Nothing may be left behind, so an interrupt only ends the play at the next step.
			interrupted := make(chan os.Signal, 1)
			signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer signal.Stop(interrupted)
			if between {
				return machinesDemo(command.OutOrStdout(), interrupted, crossing.Rows, startMachines)
			}
			return rootDemo(command.OutOrStdout(), interrupted, casts(processes, threads))
		},
	}
	command.Flags().BoolVar(&processes, "processes", false, "only with A, B and C as processes")
	command.Flags().BoolVar(&threads, "threads", false, "only with A, B and C as goroutines of one process")
	command.Flags().BoolVar(&between, "machines", false, "between three machines, with A, B and C on one or more of them")
	return command
}

// version is one way to play the demonstration.
type version struct {
	tracking guise.Tracking
	stated   bool // by the clients; otherwise the listeners say it for clients that state none
}

var versions = []version{{guise.Static, true}, {guise.Dynamic, true}, {guise.Dynamic, false}}

func (v version) String() string {
	if v.stated {
		return fmt.Sprintf("%v tracking, stated by the clients when they open the pipes", v.tracking)
	}
	return fmt.Sprintf("%v tracking, said by the listeners for clients that state none", v.tracking)
}

func rootDemo(out io.Writer, interrupted <-chan os.Signal, casts []cast) error {
	fmt.Fprintf(out, `This plays Microsoft's KB 101378: A calls B through a pipe, B acts as A and calls C, and C acts as whom?
%v is a client and becomes %v on the way. %v and %v are servers that hold CAP_SETUID and CAP_SETGID, and are not root.
Whom a server acts as is shown by the kernel: whose a file is that it makes, and whose private files it may open.
`, personA, personA2, personB, personC)
	claims := &claims{out: out}
	for _, cast := range casts {
		for _, v := range versions {
			fmt.Fprintf(out, "\n%s\n%s\n\n", cast.title, v)
			if err := play(claims, interrupted, cast, v, knowledgeBase); err != nil {
				return err
			}
		}
	}
	cannotFollow := guise.CanFollow(0)
	if err := live(claims, interrupted, casts, cannotFollow); err != nil {
		return err
	}
	fmt.Fprintf(out, `
What was shown
  static    whoever changes, reverts or goes away: a server acts as its client was when it opened the pipe
  dynamic   a server acts as its client is, through the chain; when B reverts, C sees B; when A has gone, its last context stands
%s  always    nobody got at a file that was not its client's, and no server needed root

%d claims, each compared with what the kernel did: %d were as claimed, %d were not.
`, liveSummary(cannotFollow), claims.all, claims.all-claims.wrong, claims.wrong)
	if claims.wrong > 0 {
		return errNotAsClaimed
	}
	return nil
}
