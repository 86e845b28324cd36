package machines

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Machine is one of the machines of a [Network].
type Machine struct {
	Name    string     // machine1, as its hostname
	Host    string     // machine1.guise.test, as in the service principal cifs/machine1.guise.test
	Address netip.Addr // of its only interface, eth0
	NP      string     // the directory in which its smbd looks for pipes
	Dir     string     // one of the machine's own, visible inside and outside under this path; everybody can read it

	network *Network
	holder  *holder
	samba   *service
}

// make makes the machine, up to where it is to be connected.
func (m *Machine) make() (err error) {
	// The directory that /etc is built in stays empty.
	if err := os.MkdirAll(filepath.Join(m.Dir, "etc"), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(m.Dir, 0o755); err != nil {
		return err
	}
	if m.holder, err = startMachine(m.Name, m.network.Dir, m.Dir, m.network.keeper.hold); err != nil {
		return err
	}
	return m.holder.ready()
}

// Path returns where a file of the machine is from outside: inside is its path inside. Symbolic links on the way must be relative.
func (m *Machine) Path(inside string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", m.holder.pid), inside)
}

// Command returns a command that runs a program in the machine as root, in the directory /. The program is looked for in the machine. It
// has an environment of its own, to which Env may be appended. It ends with ctx, with [Network.Close], and with this process.
//
// The command's process is nsenter(1), which returns the program's status. It passes no signals on, so end the program by ctx or
// [Machine.Signal], not by the process's Kill.
func (m *Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return m.command(ctx, environment("root", "/root"), nil, name, args)
}

// CommandAs is like [Machine.Command] for an account: all ids are the account's and no capability is left.
func (m *Machine) CommandAs(ctx context.Context, account, name string, args ...string) *exec.Cmd {
	a, err := m.network.account(account)
	if err != nil {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Err = err
		return cmd
	}
	groups := "--clear-groups"
	if len(a.Groups) > 0 {
		var ids []string
		for _, g := range a.Groups {
			ids = append(ids, fmt.Sprint(g.GID))
		}
		groups = "--groups=" + strings.Join(ids, ",")
	}
	drop := []string{fmt.Sprintf("--reuid=%d", a.UID), fmt.Sprintf("--regid=%d", a.GID), groups, "--inh-caps=-all"}
	return m.command(ctx, environment(a.Name, a.home()), drop, name, args)
}

// command enters the machine by nsenter. A context's end kills the program and not nsenter, which has to bury it: the children of an
// nsenter that is killed go to the init of outside, which may not care, and the machine can't end before they are buried. If
// it happens all the same, setpriv has the program killed. Where this process has another root directory than its mount namespace has
// (chroot), the machine's is said: or the program would be in none of what is mounted in the machine, and change the real files.
func (m *Machine) command(ctx context.Context, env, setpriv []string, name string, args []string) *exec.Cmd {
	enter := []string{fmt.Sprintf("--target=%d", m.holder.pid), "--mount", "--net", "--uts", "--ipc", "--pid", "--root", "--wd", "--", "setpriv", "--pdeathsig=KILL"}
	enter = append(append(append(enter, setpriv...), "--", name), args...)
	cmd := exec.CommandContext(ctx, program("nsenter"), enter...)
	cmd.Env = env
	cmd.WaitDelay = patience
	cmd.Cancel = func() error {
		err := m.Signal(cmd, syscall.SIGKILL)
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			err = errors.Join(err, cmd.Process.Kill())
		}
		return err
	}
	return cmd
}

// Signal sends a signal to the program of a command that was started. It returns an [os.ErrProcessDone] if the program has ended.
func (m *Machine) Signal(cmd *exec.Cmd, signal syscall.Signal) error {
	pid, err := childOf(cmd)
	if err == nil {
		err = syscall.Kill(pid, signal)
	}
	if err == syscall.ESRCH {
		err = os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("sending %v to %s on %s: %w", signal, strings.Join(cmd.Args, " "), m.Name, err)
	}
	return nil
}

// childOf returns the process id, here outside, of the program that nsenter runs, which is its only child. nsenter has none
// at first, and none when it is about to end.
func childOf(cmd *exec.Cmd) (int, error) {
	if cmd.Process == nil {
		return 0, errors.New("it was not started")
	}
	proc := fmt.Sprintf("/proc/%d", cmd.Process.Pid)
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		children, err := os.ReadFile(fmt.Sprintf("%s/task/%d/children", proc, cmd.Process.Pid))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return 0, os.ErrProcessDone
		} else if err != nil {
			return 0, err
		}
		var pid int
		if _, err := fmt.Sscan(string(children), &pid); err == nil {
			return pid, nil
		}
		stat, err := os.ReadFile(proc + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return 0, os.ErrProcessDone
		}
		if time.Since(begun) > patience {
			return 0, fmt.Errorf("nsenter (process %d) has started nothing within %v", cmd.Process.Pid, patience)
		}
	}
}
