package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/guise-project/guise"
)

func newServeCommand() *cobra.Command {
	var s server
	command := &cobra.Command{
		Use:   "serve [flags] NAME -- COMMAND [ARG...]",
		Short: "Run a command for each client of a pipe, as that client",
		Long: `Listens on the pipe NAME and runs COMMAND for each client, as that client for good: its uid, gid and groups, no
capabilities (a root client's has the client's own), a session of its own. The pipe is COMMAND's standard input and output; what it writes
to standard error is logged. It has no other descriptors. When COMMAND ends, so does the connection.

COMMAND starts once the client has said what the server may do: at once for guise's own clients, with the first data or the
end of it for others. Its context is the client's of that moment. A client that allows less than impersonation is refused.

Acting as others takes CAP_SETUID and CAP_SETGID; without them only clients whose context is the server's own are served. Nobody else
may be able to write to the socket's directory.

With --network clients of other machines are served too, by way of this machine's Samba server, which they open \\HOST\pipe\NAME on:
as the account that Samba maps them to, with static tracking. Samba has to be told of it: docs/machines.md says how.

On a pipe of messages (--message) each write of COMMAND is a message, and each of its reads returns one: what does not fit
into the read is lost.

Who may connect:
  --mode           what the kernel asks of the socket's file: clients need the write bit
  --group          whose group bits count for --mode, which is 0660 then if it is not stated; the server has to be root or in that group
  --require-group  what the server asks of each client as it connects: that one of these groups is its primary or one of its supplementary
                   ones, as the kernel tells them. There is no exception, not for root either. A client of another machine has the groups that
                   Samba maps it to.
Whom the server can't act as is not let in either: uids that the kernel can't tell, root of a container, and root if the server is not.

Limits:
  --max           So many clients are served at once; further ones wait, unaccepted, until one has ended. Clients that have said nothing
                  count, so use it with --idle. With --network one client more is accepted, and Samba's are.
  --max-per-user  So many of them of one uid; further ones are refused. Without it one user can take all of --max.
  --timeout       COMMAND may run so long.
  --idle          Nothing may have passed on the pipe for longer: the client has sent nothing and taken nothing of what COMMAND wrote. A
                  client that has not said anything yet is refused then. A COMMAND that works in silence is idle too,
                  and a client that takes less than 64 KiB in this time while more waits for it can be.
  --grace         What runs into a limit, or still runs when the server ends, gets SIGTERM, with its process group, and what is left of the
                  group after this time SIGKILL. Processes that have left the group are not ended, nor those that COMMAND leaves running when
                  it ends by itself; but they lose the pipe.

Environment of COMMAND:
  PATH            as login(1) has it, for root or for others
  HOME, USER, LOGNAME, SHELL
                  of the client's account, if it has one
  LANG, LANGUAGE, LC_*, TZ
                  the server's
  PROTO           IPC, SMB for a client of another machine
  IPCREMOTEEUID   the client's uid
  IPCREMOTEEGID   the client's gid
  IPCREMOTEPATH   the address that the client has bound its socket to, empty if none; clients choose it freely
  IPCLOCALPATH    the path of the pipe's socket
  GUISE_CLIENT    the client's account, its uid if it has none; to decide by, take IPCREMOTEEUID
  GUISE_LEVEL     how far the client lets the server go: impersonation or delegation
  GUISE_TRACKING  static or dynamic, as was agreed; COMMAND stays who it is
  GUISE_VIA       the processes that the context came through, the first one's first, as PROGRAM(PID),PROGRAM(PID); empty if the client
                  speaks for itself. A byte that is not a letter, a digit or one of /._+- is %XX in it, a program that could not be
                  seen is ?. It tells where a request came from; programs are their owners' choice, so it proves nothing.
  SMBREMOTEIP, SMBREMOTEPORT
                  where a client of another machine is
  SMBREMOTEUSER, SMBREMOTEDOMAIN
                  who Samba authenticated it as
  SMBENCRYPTED    1 if the connection is encrypted, else 0
Nothing else is in it. The working directory, the umask and the resource limits are the server's.

Log:
  A line for each client is written when it ends: who it was (client, account, uid, gid), which process connected (pid) and
  through which others (via), how COMMAND ended (status), why if the server ended it (ended), and how long it took (duration).
  Before it there is one for each line that COMMAND wrote to its standard error (line), with the client's uid and pid. Of one uid these
  are 500 at once and 50 more each second; of what is left out the last 4 lines are logged, and how much it was (lines, bytes).
  --log text     NAME=VALUE pairs
  --log json     a JSON object on each line, durations in seconds
  --log journal  entries of systemd's journal, with fields such as GUISE_PIPE, GUISE_CLIENT, GUISE_UID, GUISE_VIA and GUISE_STATUS
  Unstated, it is journal if standard error goes to the journal (JOURNAL_STREAM), and else text.

Service manager:
  LISTEN_FDS      A socket that systemd hands over is used, and NAME only names it in the log; --mode and --group have no meaning then,
                  and guise watch has nothing to see.
  NOTIFY_SOCKET   It is told when clients can come (READY=1), how many are there (STATUS=), of reloads and of the end (Type=notify).
  WATCHDOG_USEC   It hears twice in that time that the process works, all of its threads included.

Signals:
  SIGTERM, SIGINT  No more clients are accepted, the socket is removed, and the running commands have --grace to end.
  SIGHUP           The groups of --group and --require-group are looked up again; clients that are there stay. If one is missing, or
                   the socket can't be given its group, all stays as it was. A server that was started on a terminal ends as with SIGTERM.

Exit status:
  0  ended by SIGTERM or SIGINT
  1  the pipe could not be made
  2  the command line is wrong
  70  a thread could not become the server again, and everything ended at once`,
		Example: `  guise serve whoami -- id
  guise serve --network whoami -- id
  guise serve --group backup --mode 0660 --max 20 --max-per-user 4 --idle 5m backup -- /usr/local/libexec/backup --stdin
  guise serve --require-group staff --require-group wheel --timeout 1h /run/build/socket -- /usr/local/libexec/build`,
		Args: usage(checkServeArguments),
		RunE: func(command *cobra.Command, args []string) error {
			s.name, s.command = args[0], args[1:]
			if err := errors.Join(s.network.check(), s.access.check(command.Flags()), s.limits.check(command.Flags())); err != nil {
				return &usageError{err}
			}
			log, err := s.format.logger()
			if err != nil {
				return err
			}
			s.libraryLog, s.log = log, log.With("pipe", s.name)
			return s.run()
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 { // a new name
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	flags := command.Flags()
	flags.BoolVar(&s.message, "message", false, "a pipe of messages instead of bytes")
	flags.Var(&s.mode, "mode", "who may connect: the socket's mode, in octal (unstated: 0666, everybody; with --group 0660)")
	s.access.add(flags)
	s.limits.add(flags)
	flags.Var(&s.tracking, "tracking", "static or dynamic, for clients that state none (unstated: static)")
	s.network.add(flags)
	flags.BoolVar(&s.noWatch, "no-watch", false, "let nobody watch the connections; else root and this user can, with guise watch")
	flags.Var(&s.format, "log", "text, json or journal (unstated: journal if standard error goes there, else text)")
	complete(command, "tracking", guise.Static.String(), guise.Dynamic.String())
	complete(command, "log", logFormats...)
	completeGroups(command, "group", "require-group")
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
