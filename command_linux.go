package guise

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/internal/secondstage"
	"github.com/guise-project/guise/internal/secureexec"
	"github.com/guise-project/guise/token"
)

// Command returns a command that is the scope's client for good: all ids, the groups, no capabilities (a root client's has the
// client's own), a session, a session keyring and no controlling terminal of its own. A plain exec in a scope would become the
// server again, whose real uid the thread keeps.
//
// It first starts this program's own executable, which becomes the client before it looks for name in PATH and runs it. So what
// is in Env is in the environment of a process with the server's rights first: LD_PRELOAD, GODEBUG and the like would work there.
// Variables that the client has a say in go into it by way of [ClientEnviron]. Set Stdin, Stdout, Stderr and ExtraFiles too, and leave Path, Args, Dir and SysProcAttr.Credential and AmbientCaps alone. The
// program starts in this process's working directory; see [Scope.CommandIn]. That name can't be found or run shows as exit status
// 127 or 126, that the process could not become the client as 125, each with a line on its standard error.
//
// A program can't follow its client. With dynamic tracking it is ended when the client's context changes while the scope lasts: its
// process group gets SIGTERM at once and SIGKILL after [ProgramGrace]. ListenConfig.KeepPrograms leaves it alone.
//
// The command may be started in the scope or after it. What it needs and can't have is reported by its Start.
func (s *Scope) Command(name string, args ...string) *exec.Cmd {
	return s.CommandIn("", name, args...)
}

// CommandIn is [Scope.Command] in the directory dir, which is entered as the client. Setting the command's Dir instead would
// enter it as the server, and let a client whose file system it is hang the server.
func (s *Scope) CommandIn(dir, name string, args ...string) *exec.Cmd {
	s.kept.Store(true)
	ctx, t, err := s.programContext()
	if err != nil || s.ended.Load() {
		if err == nil {
			err = ErrScopeEnded
		}
		return &exec.Cmd{Path: name, Args: append([]string{name}, args...), Err: opError("command", "", err)}
	}
	order := secondstage.Order{
		UID: t.UID(), GID: t.GID(), Groups: t.Groups(),
		Capabilities: t.Capabilities(),
		Dir:          dir, Name: name, Args: append([]string{name}, args...),
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = order.Arguments()
	if ctx.Done() != nil {
		cmd.Cancel = func() error { return terminate(cmd, t) }
		cmd.WaitDelay = ProgramGrace + time.Second
	}
	cmd.SysProcAttr, cmd.Err = asServer(s)
	cmd.Err = opError("command", "", cmd.Err)
	return cmd
}

// ClientEnviron returns what to set the Env of a [Scope.Command] to, so that the program finds env, of the form of [os.Environ], and
// nothing else in its environment, and no variable has an effect before the process is the client.
func ClientEnviron(env []string) []string { return secondstage.Wrap(env) }

// asServer has a child take the server's own ids back, from which the second stage can become anybody. The thread that forks
// may wear the client: then its real ids are the server's, and taking those needs no privilege. What capabilities that takes
// are handed on as ambient ones; those of uid 0 pass an exec by themselves.
func asServer(s *Scope) (*syscall.SysProcAttr, error) {
	ruid, rgid := uint32(unix.Getuid()), uint32(unix.Getgid())
	attr := &syscall.SysProcAttr{
		Setsid:     true,
		Credential: &syscall.Credential{Uid: ruid, Gid: rgid, NoSetGroups: true},
	}
	server := s.worn.Server()
	if server.UID != ruid || server.GID != rgid {
		return nil, fmt.Errorf("%w: a program can be started as a client only by a server whose real and effective ids are the same; this one has uids %d and %d, gids %d and %d",
			ErrPrivilege, ruid, server.UID, rgid, server.GID)
	}
	if secureexec.Is() {
		return nil, errors.New("an executable that is set-user-ID or has file capabilities can't start programs as its clients; give the service ambient capabilities instead (AmbientCapabilities= of systemd)")
	}
	if ruid == 0 {
		return attr, nil
	}
	sets, e := capability.Get()
	if e != 0 {
		return nil, os.NewSyscallError("capget", e)
	}
	for _, n := range []int{token.CapSetuid, token.CapSetgid, token.CapSetpcap} {
		if sets.Permitted.Has(n) {
			attr.AmbientCaps = append(attr.AmbientCaps, uintptr(n))
		}
	}
	return attr, nil
}
