package machines

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// service is a program that runs in a machine until it is stopped.
type service struct {
	name string
	m    *Machine
	cmd  *exec.Cmd
	pid  int // the program's, outside
	logs []string
	done chan struct{}
	err  error // how it ended, once done is closed
}

// startService starts a service. What it says goes to a file in the machine's directory; logs are other files worth reading if it fails.
func (m *Machine) startService(name string, logs []string, cmd *exec.Cmd) (*service, error) {
	path := filepath.Join(m.Dir, name+".out")
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("starting %s on %s: %w", name, m.Name, err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s on %s: %w", name, m.Name, err)
	}
	s := &service{name: name, m: m, cmd: cmd, logs: append([]string{path}, logs...), done: make(chan struct{})}
	s.pid, err = childOf(cmd)
	go func() {
		defer close(s.done)
		s.err = cmd.Wait()
	}()
	if err != nil {
		return nil, s.failed(errors.Join(err, cmd.Process.Kill()))
	}
	return s, nil
}

// await asks probe until it is content. It fails when the service ends, or after a time, with what the service and the last probe said.
func (s *service) await(ctx context.Context, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.done:
			return s.failed(fmt.Errorf("it ended: %v", s.err))
		case <-ctx.Done():
			return s.failed(fmt.Errorf("it was not ready (%w): %w", ctx.Err(), err))
		case <-time.After(5 * time.Millisecond): // then ask again
		}
	}
}

// failed says that the service did not come up, and the ends of its logs.
func (s *service) failed(err error) error {
	var b strings.Builder
	for _, path := range s.logs {
		fmt.Fprintf(&b, "\nthe end of %s:\n%s", path, tail(path))
	}
	return fmt.Errorf("%s on %s did not come up: %w%s", s.name, s.m.Name, err, b.String())
}

// tail returns a file's last lines.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(b) > 3000 {
		b = b[len(b)-3000:]
	}
	return string(b)
}

// stop ends the service and its children, and waits until they are gone.
func (s *service) stop() error {
	if s == nil {
		return nil
	}
	syscall.Kill(s.pid, syscall.SIGTERM) // it may have ended by itself
	deadline := time.After(patience)
	for killed := false; ; {
		select {
		case <-s.done:
			// smbd has a process group of its own, and what it leaves is on its way out too.
			if syscall.Kill(-s.pid, 0) == syscall.ESRCH {
				if killed {
					return fmt.Errorf("%s on %s did not end within %v after SIGTERM and was killed", s.name, s.m.Name, patience)
				}
				return nil
			}
		default:
		}
		select {
		case <-deadline:
			syscall.Kill(s.pid, syscall.SIGKILL)
			syscall.Kill(-s.pid, syscall.SIGKILL)
			killed = true
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// gone waits for a service whose machine is gone.
func (s *service) gone() {
	if s != nil {
		<-s.done
	}
}
