package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// server runs a command for each client of a pipe.
type server struct {
	name     string   // as it was given, for logs
	command  []string // with its arguments
	message  bool
	mode     modeFlag
	tracking trackingFlag
	noWatch  bool
	network  networkFlags

	libraryLog *slog.Logger // names the pipe by itself
	log        *slog.Logger
	clients    sync.WaitGroup
}

func newServeCommand() *cobra.Command {
	var s server
	command := &cobra.Command{
		Use:   "serve [flags] NAME -- COMMAND [ARG...]",
		Short: "Run a command for each client of a pipe, as that client",
		Long: `Listens on the pipe NAME and runs COMMAND for each client, as that client for good: its uid, gid and groups, no
capabilities (a root client's has the client's own), a session of its own. The pipe is COMMAND's standard input and output; standard
error is the server's. When COMMAND ends, so does the connection.

COMMAND starts once the client has said what the server may do: at once for guise's own clients, with the first data or the
end of it for others. Its context is the client's of that moment. A client that allows less than impersonation is refused.

If systemd hands over a socket, that one is used and NAME only names it in the log; --mode has no meaning then. Otherwise
nobody else may be able to write to the socket's directory. Acting as others takes CAP_SETUID and CAP_SETGID; without
them only clients whose context is the server's own are served.

With --network clients of other machines are served too, by way of this machine's Samba server, which they open \\HOST\pipe\NAME on:
as the account that Samba maps them to, with static tracking. Samba has to be told of it: docs/machines.md says how.

On a pipe of messages (--message) each write of COMMAND is a message, and each of its reads returns one: what does not fit
into the read is lost.

COMMAND's environment is PATH, the server's LANG, LANGUAGE, LC_* and TZ, the HOME, USER, LOGNAME and SHELL of the client's account if it
has one, and
  PROTO          IPC, SMB for a client of another machine
  IPCREMOTEEUID  the client's uid
  IPCREMOTEEGID  the client's gid
  IPCREMOTEPATH  the address that the client has bound its socket to, empty if none; clients choose it freely
  IPCLOCALPATH   the path of the pipe's socket
and for a client of another machine
  SMBREMOTEIP, SMBREMOTEPORT     where it is
  SMBREMOTEUSER, SMBREMOTEDOMAIN who Samba authenticated it as
  SMBENCRYPTED                   1 if the connection is encrypted, else 0
Its working directory is the server's.

A line for each client goes to standard error when it ends. On SIGTERM and SIGINT no more clients are accepted, the socket is
removed, and the running commands have five seconds to end after a SIGTERM to their process groups.

Exit status:
  0  ended by SIGTERM or SIGINT
  1  the pipe could not be made
  2  the command line is wrong`,
		Example: `  guise serve whoami -- id
  guise serve --network whoami -- id
  guise serve --mode 0660 /run/backup/socket -- /usr/local/libexec/backup --stdin`,
		Args: usage(checkServeArguments),
		RunE: func(_ *cobra.Command, args []string) error {
			s.name, s.command = args[0], args[1:]
			if err := s.network.check(); err != nil {
				return &usageError{err}
			}
			s.libraryLog = slog.New(slog.NewTextHandler(os.Stderr, nil))
			s.log = s.libraryLog.With("pipe", s.name)
			return s.run()
		},
	}
	flags := command.Flags()
	flags.BoolVar(&s.message, "message", false, "a pipe of messages instead of bytes")
	flags.Var(&s.mode, "mode", "who may connect: the socket's mode, in octal (unstated: 0666, everybody)")
	flags.Var(&s.tracking, "tracking", "static or dynamic, for clients that state none (unstated: static)")
	s.network.add(flags)
	flags.BoolVar(&s.noWatch, "no-watch", false, "let nobody watch the connections; else root and this user can, with guise watch")
	return command
}

func checkServeArguments(command *cobra.Command, args []string) error {
	switch dash := command.ArgsLenAtDash(); {
	case len(args) == 0 || dash == 0:
		return errors.New("the pipe's NAME is missing")
	case dash < 0:
		return errors.New("COMMAND is missing, or the -- before it: guise serve NAME -- COMMAND")
	case dash > 1:
		return errors.New("there can be only one NAME before the --")
	case len(args) == 1:
		return errors.New("COMMAND is missing after the --")
	}
	return nil
}

func (s *server) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// A log that nobody reads any more must not end the server. Ignoring the signal would have the commands ignore it too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	listener, err := s.listen()
	if err != nil {
		return err
	}
	defer listener.Close()
	s.announce(listener)

	stopListening := context.AfterFunc(ctx, func() { listener.Close() })
	defer stopListening()
	err = s.accept(ctx, listener)
	s.waitClients()
	s.log.Info("ended")
	return err
}

// announce tells the log that clients can come, and what will be wrong with them if something will.
func (s *server) announce(listener *guise.Listener) {
	s.log.Info("listening", "path", addressText(listener.Addr()), "command", s.command[0])
	if able, err := canActAsOthers(); err == nil && !able {
		self, _ := token.Self()
		s.log.Warn("only clients whose context is the server's own will be served: acting as others takes CAP_SETUID and CAP_SETGID (AmbientCapabilities= of systemd)", "server", self)
	}
}

func (s *server) config() *guise.ListenConfig {
	return &guise.ListenConfig{
		Mode: fs.FileMode(s.mode), Message: s.message, Tracking: guise.Tracking(s.tracking), Logger: s.libraryLog,
		Level: guise.Impersonation, // or there is nobody to run the command as
		Watch: !s.noWatch, Network: s.network.config(),
	}
}

// accept starts a goroutine for each client, until ctx ends.
func (s *server) accept(ctx context.Context, listener *guise.Listener) error {
	for {
		conn, err := listener.AcceptPipe()
		switch {
		case err == nil:
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		default:
			return err
		}
		s.clients.Add(1)
		go func() {
			defer s.clients.Done()
			s.serve(ctx, conn)
		}()
	}
}

// waitClients waits until every client has been served, but not for a command that not even SIGKILL ends.
func (s *server) waitClients() {
	served := make(chan struct{})
	go func() {
		s.clients.Wait()
		close(served)
	}()
	select {
	case <-served:
	case <-time.After(grace + time.Second):
		s.log.Error("a command does not end; leaving it behind")
	}
}
