package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/launch"
	"github.com/guise-project/guise/internal/quota"
	"github.com/guise-project/guise/token"
)

var errEnding = errors.New("the server ended before the client had said anything")

// serve runs the command for one client, from its first word to its line in the log.
func (s *server) serve(ctx context.Context, conn *guise.Conn) {
	began := time.Now()
	if err := s.waitWord(ctx, conn); err != nil {
		s.refuse(conn, began, err)
		return
	}
	qos := conn.QoS() // as agreed; start freezes it
	r, err := s.start(conn, qos)
	if err != nil {
		s.refuse(conn, began, err)
		return
	}
	state, why, err := s.await(ctx, r)
	r.relayed.finish()
	flush(conn)
	conn.Close()
	s.endErrors(r) // after all that the client could wait for

	level := slog.LevelInfo
	attributes := append(clientAttributes(r.client, qos), outcome(state, err))
	if why != nil {
		attributes = append(attributes, slog.Any("ended", why))
		if why != errServerEnds {
			level = slog.LevelWarn
		}
	}
	s.log.LogAttrs(context.Background(), level, "client served", append(attributes, slog.Duration("duration", time.Since(began)))...)
}

// waitWord waits for the client's first word, no longer than it may be idle.
func (s *server) waitWord(ctx context.Context, conn *guise.Conn) error {
	waiting := ctx
	if s.limits.idle > 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeout(ctx, s.limits.idle)
		defer cancel()
	}
	err := conn.WaitClient(waiting)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errEnding
	case waiting.Err() != nil:
		return fmt.Errorf("it has said nothing for %v (--idle)", s.limits.idle)
	}
	return err
}

// flushTime is how long a client of another machine may take for reading what its command wrote last.
const flushTime = 5 * time.Second

// flush waits until a client of another machine has what its command wrote last: it would be lost if the server ended meanwhile.
func flush(conn *guise.Conn) {
	if _, here := conn.RemoteAddr().(*net.UnixAddr); here {
		return // the kernel keeps it
	}
	// Also if the server is ending: for that it is.
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	_ = conn.Flush(ctx) // Close goes on with it
}

// running is the command of a client that runs.
type running struct {
	client  *token.Token
	process *os.Process
	relayed *relay
	idle    *idleness // nil if it may be idle for as long as it likes
	errors  *commandErrors
	budget  *lineBudget
}

// start starts the command as the client. What can't be known of a client, or not be acted for, is an error.
func (s *server) start(conn *guise.Conn, qos guise.QoS) (*running, error) {
	r := &running{}
	var command *exec.Cmd
	// The command reads the socket itself, and can't follow.
	if err := conn.Freeze(); err != nil {
		return nil, err
	}
	err := conn.RunAsClient(func(scope *guise.Scope) error {
		r.client = scope.Token()
		command = scope.Command(s.command[0], s.command[1:]...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.idle = newIdleness(s.limits.idle)
	toErrors, err := s.startErrors(r)
	if err != nil {
		return nil, err
	}
	defer toErrors.Close()
	pipe, err := s.pipeFor(conn, r)
	if err != nil {
		s.endErrors(r)
		return nil, err
	}
	defer pipe.Close()
	command.Env = guise.ClientEnviron(environment(r.client, qos, remotePath(conn), addressText(conn.LocalAddr())))
	// Not in the scope any more, which the fork would only lengthen: the command is the client all the same.
	started := s.starting.wait(quota.Of(r.client.UID()))
	r.process, err = startCommand(command, pipe, toErrors)
	started()
	if err != nil {
		r.relayed.finish()
		s.endErrors(r)
		return nil, fmt.Errorf("starting %s as %s: %w", s.command[0], r.client, err)
	}
	r.idle.watch(conn, r.relayed == nil)
	return r, nil
}

// startErrors returns what the command is to have as its standard error.
func (s *server) startErrors(r *running) (toErrors *os.File, err error) {
	client := []slog.Attr{slog.Uint64("uid", uint64(r.client.UID())), slog.Int("pid", r.client.Source().PID)} // as in its line
	r.budget = s.lineBudgets.take(r.client.UID())
	r.errors, toErrors, err = newCommandErrors(r.budget, func(level slog.Level, message string, attributes ...slog.Attr) {
		s.log.LogAttrs(context.Background(), level, message, append(attributes, client...)...)
	})
	if err != nil {
		s.lineBudgets.leave(r.budget, time.Now())
	}
	return toErrors, err
}

func (s *server) endErrors(r *running) {
	r.errors.end()
	s.lineBudgets.leave(r.budget, time.Now())
}

// startCommand starts what [guise.Scope.Command] has made. Start of package os/exec would have the child close what clients have
// passed this process, which can hang.
func startCommand(command *exec.Cmd, pipe, errors *os.File) (*os.Process, error) {
	if command.Err != nil {
		return nil, command.Err
	}
	files := []int{int(pipe.Fd()), int(pipe.Fd()), int(errors.Fd())}
	pid, err := launch.Start(command.Path, command.Args, command.Env, files, command.SysProcAttr)
	if err != nil {
		return nil, err
	}
	return os.FindProcess(pid)
}

// pipeFor returns the command's end of the pipe: the client's own socket where that speaks as a pipe of this machine does.
func (s *server) pipeFor(conn *guise.Conn, r *running) (pipe *os.File, err error) {
	if conn.Message() && r.client.Source().Kind == token.FromNetwork {
		pipe, r.relayed, err = startRelay(conn, r.idle.passed)
		return pipe, err
	}
	return blockingCopy(conn)
}

// remotePath returns the address that a client of this machine has bound its socket to.
func remotePath(conn *guise.Conn) string {
	if _, here := conn.RemoteAddr().(*net.UnixAddr); !here {
		return ""
	}
	return addressText(conn.RemoteAddr())
}

// blockingCopy returns a descriptor of the pipe's socket for a program to read and write. It and conn are one open file
// (fcntl(2)), so conn does not read and write any more.
func blockingCopy(conn *guise.Conn) (*os.File, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var copied int
	var copyErr error
	err = raw.Control(func(fd uintptr) {
		if copied, copyErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); copyErr != nil {
			return
		}
		if copyErr = unix.SetNonblock(copied, false); copyErr != nil {
			unix.Close(copied)
		}
	})
	if err = errors.Join(err, copyErr); err != nil {
		return nil, fmt.Errorf("making a descriptor of the pipe for the command: %w", err)
	}
	return os.NewFile(uintptr(copied), conn.Name()), nil
}

// refuse ends a connection for which the command does not run.
func (s *server) refuse(conn *guise.Conn, began time.Time, why error) {
	uid, err := uidOf(conn)
	if err == nil && !s.refusals.Take(quota.Of(uid)) {
		s.refusalsLeftOut.Add(1)
		conn.Close()
		return
	}
	qos := conn.QoS()
	attributes := []slog.Attr{qosAttribute(qos)}
	// Who calls is not known, and at level anonymous not to be told.
	if client, err := token.Of(conn); err == nil && qos.Level != guise.Anonymous && qos.Level != guise.LevelUnstated {
		attributes = clientAttributes(client, qos)
	}
	conn.Close()
	attributes = append(attributes, slog.Any("error", why), slog.Duration("duration", time.Since(began)))
	if n := s.refusalsLeftOut.Swap(0); n > 0 {
		attributes = append(attributes, slog.Int64("leftOut", n))
	}
	s.log.LogAttrs(context.Background(), slog.LevelWarn, "client refused", attributes...)
}

func clientAttributes(client *token.Token, qos guise.QoS) []slog.Attr {
	attributes := []slog.Attr{
		slog.Any("client", client), // with where it is, if that is another machine
		slog.Uint64("uid", uint64(client.UID())),
		slog.Uint64("gid", uint64(client.GID())),
		slog.String("account", accountName(client)),
		slog.Int("pid", client.Source().PID),
		qosAttribute(qos),
	}
	if via := viaText(client.Via()); via != "" {
		attributes = append(attributes, slog.String("via", via))
	}
	return attributes
}

func qosAttribute(qos guise.QoS) slog.Attr {
	return slog.Group("qos",
		slog.String("level", qos.Level.String()),
		slog.String("tracking", qos.Tracking.String()),
		slog.Bool("effectiveOnly", qos.EffectiveOnly))
}

// outcome says how a command ended.
func outcome(state *os.ProcessState, err error) slog.Attr {
	switch {
	case err != nil:
		return slog.Any("error", err)
	case !state.Exited():
		return slog.String("status", state.String())
	}
	return slog.Int("status", state.ExitCode())
}
