package actor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/guise-project/guise/internal/machines"
)

// onMachine is an actor in a process on one of several machines. Its process here is nsenter(1), which has one child.
type onMachine struct {
	process
	machine *machines.Machine
}

// OnMachine starts an actor as a process on a machine, of this program's executable, with the given ids and, unless they are root's,
// those capabilities (by number) and no others. The end of ctx kills it.
func OnMachine(ctx context.Context, m *machines.Machine, ids IDs, capabilities ...uintptr) (Actor, error) {
	cmd, err := CommandOn(ctx, m, ids, capabilities...)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, environment)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting an actor as uid %d on %s: %w", ids.UID, m.Name, err)
	}
	return &onMachine{process{cmd, stdin, json.NewEncoder(stdin), json.NewDecoder(stdout)}, m}, nil
}

// CommandOn returns a command that runs this program's executable on a machine, with the given ids and, unless they are root's, those
// capabilities. See [machines.Machine.Command].
func CommandOn(ctx context.Context, m *machines.Machine, ids IDs, capabilities ...uintptr) (*exec.Cmd, error) {
	inside, err := m.Install("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	cmd := m.Command(ctx, "setpriv", append(setpriv(ids, capabilities), "--", inside)...)
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0") // which is a second in a race-enabled build
	cmd.Stderr = os.Stderr
	// Ctrl-C at a terminal is for the program that plays, and must not end nsenter before what it started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

// setpriv returns what has setpriv(1) give a program its ids and capabilities.
func setpriv(ids IDs, capabilities []uintptr) []string {
	groups := "--clear-groups"
	if len(ids.Groups) > 0 {
		groups = "--groups=" + strings.Trim(strings.ReplaceAll(fmt.Sprint(ids.Groups), " ", ","), "[]")
	}
	args := []string{"--pdeathsig=KILL", fmt.Sprintf("--reuid=%d", ids.UID), fmt.Sprintf("--regid=%d", ids.GID), groups}
	if ids.UID == 0 {
		return args
	}
	caps := "-all"
	for _, c := range capabilities {
		caps += fmt.Sprintf(",+cap_%d", c)
	}
	return append(args, "--inh-caps="+caps, "--ambient-caps="+caps)
}

// PID is the process's number on its machine, 0 if it has gone.
func (a *onMachine) PID() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", a.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	if b, err = os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/status"); err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(value)
			pid, _ := strconv.Atoi(fields[len(fields)-1])
			return pid
		}
	}
	return 0
}

func (a *onMachine) Stop() error {
	if err := a.process.Stop(); err != nil {
		return fmt.Errorf("on %s: %w", a.machine.Name, err)
	}
	return nil
}
