package guise

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// ProgramGrace is how long a program that was started with [Scope.Command] has to end after its client's context has changed: its
// process group gets SIGTERM at once, and SIGKILL after that.
const ProgramGrace = 5 * time.Second

var programGrace = ProgramGrace // tests are not that patient

// programs is the context (in Go's sense) of the programs that were started in a scope. It ends when the client's (in NT's) changes.
type programs struct {
	context.Context
	changed chan struct{}
}

func (p *programs) Done() <-chan struct{} { return p.changed }

func (p *programs) Err() error {
	select {
	case <-p.changed:
		return ErrContextChanged
	default:
		return nil
	}
}

// endPrograms ends those that were started as who the scope's client was. f.mu is held.
func (f *follower) endPrograms() {
	if f.programs != nil {
		close(f.programs.changed)
		f.programs = nil
	}
}

// programContext returns what ends when a program of the scope has to, and the token it is started with.
func (s *Scope) programContext() (context.Context, *token.Token, error) {
	f := &s.client
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost != nil {
		return nil, nil, f.lost
	}
	if !s.worn.Follow || s.conn.server.listener.config.KeepPrograms {
		return context.Background(), s.token.Load(), nil
	}
	if f.programs == nil {
		f.programs = &programs{context.Background(), make(chan struct{})}
	}
	return f.programs, s.token.Load(), nil
}

// terminate ends the process group of a program that t was the client of.
func terminate(cmd *exec.Cmd, t *token.Token) error {
	fd, err := openChild(cmd.Process.Pid)
	if err != nil {
		return err
	}
	time.AfterFunc(programGrace, func() {
		_ = signalGroup(fd, unix.SIGKILL, t)
		unix.Close(fd)
	})
	return signalGroup(fd, unix.SIGTERM, t)
}

// openChild returns a pidfd of a child that has not been waited for. With it a signal can't reach another group that got the same
// number since.
func openChild(pid int) (fd int, err error) {
	fd, err = unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, os.ErrProcessDone
	}
	if err := unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
		unix.Close(fd) // no child of ours: it has been waited for
		return -1, os.ErrProcessDone
	}
	return fd, nil
}

// signalGroup signals a process group with the server's own rights, which a program has until it has become the client, or as the
// client, whose rights it has after that.
func signalGroup(fd int, signal unix.Signal, client *token.Token) error {
	err := signalGroupNow(fd, signal)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	var as thread.Worn
	if err := as.Enter(client); err != nil {
		return err
	}
	err = signalGroupNow(fd, signal)
	return errors.Join(err, as.Leave())
}

func signalGroupNow(fd int, signal unix.Signal) error {
	const processGroup = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9, as pidfs, without which nothing follows
	return unix.PidfdSendSignal(fd, signal, nil, processGroup)
}
