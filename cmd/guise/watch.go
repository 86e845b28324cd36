package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/guise-project/guise"
)

func newWatchCommand() *cobra.Command {
	asJSON := false
	command := &cobra.Command{
		Use:   "watch [flags] NAME",
		Short: "Show a server's connections and their contexts as they change",
		Long: `Shows the connections of the server of the pipe NAME: who opened them, the quality of service in force, the context that the
server has of each client now, the processes that this context came through, and how many scopes are in progress; first what is
there, then what changes. On a terminal that is a table, q or Ctrl-C ends it; elsewhere a line for each event.

The server has to let itself be watched: guise serve does, unless it was told --no-watch or got its socket from systemd; others set
ListenConfig.Watch. Root and the user that the server runs as may watch. What goes over the pipe is not shown.

A server does not wait for those who watch. If they are too slow, or paused, they are told how many events they missed, and
what is there then.

Events:
  begun     the watch has; what is there follows
  there     a connection that was there already
  opened    a client has connected and was let in
  known     it has said something, and with it what the server may do
  changed   its context is another one, for scopes in progress too that were entered for the same source
  followed  only scopes in progress have another context, not what is read next
  entered   the server has entered a scope
  left      it has left one
  frozen    the context is not followed any more (guise serve does that before it starts the command)
  lost      the context could not be proved, or the client broke the protocol; the connection has ended
  closed    the server has closed the connection
  missed    so many events are not shown; what is there follows
  ended     the server has stopped listening

Exit status:
  0  ended by q, SIGINT or SIGTERM, or the server has stopped listening
  1  the server has gone, or the connection to it failed
  2  the command line is wrong
  3  there is no such pipe, nobody listens on it any more, or its server does not let itself be watched
  4  as many watch it as may at once
  5  this user may not watch it`,
		Example: `  guise watch spool
  guise watch --json spool | jq 'select(.event == "lost")'`,
		Args: usage(checkWatchArguments),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			defer stop()
			events := guise.Watch(ctx, args[0])
			var err error
			switch {
			case asJSON:
				err = watchJSON(events, os.Stdout)
			case isTerminal(os.Stdout) && os.Getenv("TERM") != "dumb":
				err = watchTerminal(events, stop, os.Stdin, os.Stdout)
			default:
				err = watchLines(events, os.Stdout)
			}
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
		ValidArgsFunction: completePipes(func(p *pipeReport) bool { return p.Watched }),
	}
	command.Flags().BoolVar(&asJSON, "json", false, "a JSON object on a line of its own for each event")
	return command
}

func checkWatchArguments(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return errors.New("the pipe's NAME is missing")
	case 1:
		return nil
	}
	return fmt.Errorf("one pipe is watched at a time: %q is too much", args[1])
}

func watchJSON(events iter.Seq2[*guise.WatchEvent, error], out io.Writer) error {
	return eachEvent(events, func(v any) error {
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(v); err != nil {
			return err
		}
		_, err := io.WriteString(out, printableJSON(b.String()))
		return err
	})
}

func watchLines(events iter.Seq2[*guise.WatchEvent, error], out io.Writer) error {
	return eachEvent(events, func(v any) error {
		_, err := fmt.Fprintln(out, eventLine(v.(*guise.WatchEvent)))
		return err
	})
}

// eachEvent calls show with each event.
func eachEvent(events iter.Seq2[*guise.WatchEvent, error], show func(any) error) error {
	for e, err := range events {
		if err != nil {
			return err
		}
		if err := show(e); err != nil {
			return fmt.Errorf("writing standard output: %w", err)
		}
		if e.Kind == guise.WatchEnded {
			fmt.Fprintln(os.Stderr, "guise watch: "+endedText(e)+".")
		}
	}
	return nil
}
