package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// call is one call of a pipe, as the command line has it.
type call struct {
	level         levelFlag
	tracking      trackingFlag
	effectiveOnly bool
	serverUID     uint32
	checkUID      bool
	timeout       time.Duration
	network       networkCall
}

func newCallCommand() *cobra.Command {
	var c call
	command := &cobra.Command{
		Use:   "call [flags] NAME",
		Short: "Connect standard input and output to a pipe",
		Long: `Opens the pipe NAME, sends it standard input and writes what it answers to standard output. At the end of the input
the sending side is closed, and the rest of the answer still read; the call ends when the server closes.

On a pipe of messages each read of standard input, of at most 64 KiB, is sent as one message, and each message that comes
is written to standard output as it is.

NAME may be one of another machine, \\HOST\pipe\NAME or //HOST/pipe/NAME, whose Samba or Windows serves it. The caller is then proved
by Kerberos, with the ticket that kinit or a login left, or by a password (--user). There is no closing of the sending side
on the network: the server has to know from the data where a request ends. A level below impersonation, delegation and effective-only are
refused, because they can't be told to the server; dynamic tracking becomes static.

A server that is busy is waited for, for as long as --timeout allows; without it, and for a server that never
closes, as long as it takes.

Exit status:
  0  the server has closed the pipe, and everything was sent; what it did with it a pipe does not tell
  1  reading, writing or the connection failed; also if the server closed before it had read all of the input
  2  the command line is wrong
  3  there is no such pipe, or nobody listens on it any more
  4  the server was busy, or the call not over, when --timeout ended
  5  the server, or the mode of its socket, does not let this client in
  6  the server is not of --server-uid; nothing was sent
  7  the other machine can't be reached, or the connection to it broke
  8  the caller can't be proved to the other machine: there is no ticket, or an expired one, a clock is off, the KDC can't be reached or
     does not know the server, or the password is wrong`,
		Example: `  echo hello | guise call spool
  echo hello | guise call '\\files.example.com\pipe\spool'
  guise call --level identification --timeout 5s /run/backup/socket </dev/null`,
		Args: usage(checkCallArguments),
		RunE: func(command *cobra.Command, args []string) error {
			c.checkUID = command.Flags().Changed("server-uid")
			if c.timeout < 0 {
				return &usageError{fmt.Errorf("--timeout %v lies in the past", c.timeout)}
			}
			if err := c.network.check(args[0], &c); err != nil {
				return &usageError{err}
			}
			return c.run(args[0], os.Stdin, os.Stdout)
		},
		ValidArgsFunction: completePipes(func(*pipeReport) bool { return true }),
	}
	flags := command.Flags()
	flags.Var(&c.level, "level", "how far the server may go: anonymous, identification, impersonation (what it takes to be unstated) or delegation")
	flags.Var(&c.tracking, "tracking", "static or dynamic (unstated: as the server prefers)")
	flags.BoolVar(&c.effectiveOnly, "effective-only", false, "only enabled capabilities count (matters to root)")
	flags.Uint32Var(&c.serverUID, "server-uid", 0, "refuse a server that is not of this `UID` (unstated: any)")
	c.network.add(command)
	flags.DurationVar(&c.timeout, "timeout", 0, "how long the whole call may last, a `DURATION` such as 5s (0: no limit)")
	complete(command, "level", levelNames...)
	complete(command, "tracking", guise.Static.String(), guise.Dynamic.String())
	return command
}

func checkCallArguments(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return errors.New("the pipe's NAME is missing")
	case 1:
		return nil
	}
	return fmt.Errorf("one pipe is called at a time: %q is too much", args[1])
}

func (c *call) run(name string, in io.Reader, out io.Writer) error {
	ctx := context.Background()
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	conn, err := c.dial(ctx, name)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, limited := ctx.Deadline(); limited {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	return transfer(conn, in, out)
}

func (c *call) dial(ctx context.Context, name string) (*guise.Conn, error) {
	qos := &guise.QoS{Level: guise.Level(c.level), Tracking: guise.Tracking(c.tracking), EffectiveOnly: c.effectiveOnly}
	if onNetwork(name) {
		return c.network.dial(ctx, name, qos)
	}
	dialer := guise.Dialer{QoS: qos}
	if c.checkUID {
		dialer.CheckServer = c.checkServer
	}
	return dialer.Dial(ctx, name)
}

func (c *call) checkServer(server *token.Token) error {
	if server.UID() != c.serverUID {
		return fmt.Errorf("%w, which has uid %d", errServerUntrusted, c.serverUID)
	}
	return nil
}
