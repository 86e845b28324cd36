package machines_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/guise-project/guise/internal/machines"
)

func TestMachinesReachOneAnotherByName(t *testing.T) {
	n := start(t, &machines.Config{})
	for _, m := range n.Machines {
		if name := output(t, m, "", "hostname"); name != m.Name+"\n" {
			t.Errorf("%s calls itself %q", m.Name, name)
		}
		for _, to := range n.Machines {
			for _, name := range []string{to.Name, to.Host} {
				output(t, m, "", "bash", "-c", "exec 3<>/dev/tcp/"+name+"/445")
			}
		}
		c, err := m.Dial(t.Context(), "tcp", n.Machines[0].Address.String()+":445")
		if err != nil {
			t.Error(err)
			continue
		}
		c.Close()
	}
}

func TestAccountsAreTheSameEverywhere(t *testing.T) {
	n := start(t, &machines.Config{Accounts: people})
	for _, m := range n.Machines {
		for account, want := range map[string]string{
			"alice": "uid=61001(alice) gid=61001(alice) groups=61001(alice),61100(staff),61101(audit)\n",
			"bob":   "uid=61002(bob) gid=61100(staff) groups=61100(staff)\n",
			"local": "uid=61003(local) gid=61003(local) groups=61003(local)\n",
		} {
			// The first is what the account is, the second what the command is.
			if got := output(t, m, "", "id", account); got != want {
				t.Errorf("%s is %q on %s, want %q", account, got, m.Name, want)
			}
			if got := output(t, m, account, "id"); got != want {
				t.Errorf("a program of %s is %q on %s, want %q", account, got, m.Name, want)
			}
			for line := range strings.Lines(output(t, m, account, "cat", "/proc/self/status")) {
				if strings.HasPrefix(line, "Cap") && !strings.HasPrefix(line, "CapBnd") && !strings.HasSuffix(line, "\t0000000000000000\n") {
					t.Errorf("a program of %s has %s", account, line)
				}
			}
			output(t, m, account, "sh", "-c", `[ "$HOME" = /home/`+account+` ] && touch "$HOME/file" "/tmp/of-$USER" && [ -z "$TMPDIR" ]`)
		}
	}
	cmd := n.Machines[0].CommandAs(t.Context(), "mallory", "id")
	if err := cmd.Run(); err == nil || !strings.Contains(err.Error(), `no account "mallory"`) {
		t.Errorf("a program of an account that is not: %v", err)
	}
}

func TestProgramsAreBroughtIn(t *testing.T) {
	n := start(t, &machines.Config{Machines: 2, Accounts: people})
	inside, err := n.Machines[0].Install("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := n.Machines[1].Install("/proc/self/exe"); again != inside || err != nil {
		t.Errorf("installed again as %s, %v; want %s", again, err, inside)
	}
	cmd := n.Machines[1].CommandAs(t.Context(), "alice", inside)
	cmd.Env = append(cmd.Env, role+"=who", "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "61001 61001 machine2\n" {
		t.Errorf("this test's program says %q on machine2, %v", out, err)
	}
	if _, err := n.Machines[0].Install("/nonexistent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("installing a file that is not: %v", err)
	}
	// What a machine writes can be read from outside.
	output(t, n.Machines[0], "", "sh", "-c", "echo hello >/run/hello")
	if b, err := os.ReadFile(n.Machines[0].Path("/run/hello")); err != nil || string(b) != "hello\n" {
		t.Errorf("from outside, /run/hello of machine1 has %q, %v", b, err)
	}
	if _, err := os.Lstat(n.Machines[1].Path("/run/hello")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of machine1 on machine2: %v", err)
	}
}

func TestCommandsEnd(t *testing.T) {
	n := start(t, &machines.Config{Machines: 1, Accounts: people})
	m := n.Machines[0]
	programs := func() int { return strings.Count(output(t, m, "", "ps", "-eo", "args"), "sleep 1234") }
	for _, make := range []func(context.Context) *exec.Cmd{
		func(ctx context.Context) *exec.Cmd { return m.Command(ctx, "sleep", "1234") },
		func(ctx context.Context) *exec.Cmd { return m.CommandAs(ctx, "alice", "sleep", "1234") },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		for _, end := range []func(*exec.Cmd){
			func(*exec.Cmd) { cancel() },
			func(cmd *exec.Cmd) {
				if err := m.Signal(cmd, syscall.SIGTERM); err != nil {
					t.Error(err)
				}
			},
		} {
			cmd := make(ctx)
			if ctx.Err() != nil {
				cmd = make(t.Context())
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			until(t, func() error {
				if programs() != 1 {
					return errors.New("the program does not run")
				}
				return nil
			})
			end(cmd)
			begun := time.Now()
			err := cmd.Wait()
			if err == nil || !strings.HasPrefix(err.Error(), "signal: ") || time.Since(begun) > 5*time.Second {
				t.Errorf("a program that was told to end: %v after %v", err, time.Since(begun))
			}
			if err := m.Signal(cmd, syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("a signal to a program that has ended: %v", err)
			}
			until(t, func() error {
				if programs() != 0 {
					return errors.New("the program runs on")
				}
				return nil
			})
		}
		cancel()
	}
	if out, err := m.Command(t.Context(), "sh", "-c", "echo said; exit 7").Output(); string(out) != "said\n" || err == nil || err.Error() != "exit status 7" {
		t.Errorf("a program that ends with 7: %q, %v", out, err)
	}
}

func TestLink(t *testing.T) {
	n := start(t, &machines.Config{})
	second, third := n.Machines[1], n.Machines[2]
	reach := func(m *machines.Machine, patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, err := m.Dial(ctx, "tcp", third.Address.String()+":445")
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := third.SetLink(false); err != nil {
		t.Fatal(err)
	}
	if err := reach(second, 300*time.Millisecond); err == nil {
		t.Error("a machine is reached whose cable is cut")
	}
	if err := reach(third, 10*time.Second); err != nil {
		t.Errorf("a machine whose cable is cut does not reach itself: %v", err)
	}
	if err := third.SetLink(true); err != nil {
		t.Fatal(err)
	}
	if err := reach(second, 10*time.Second); err != nil {
		t.Errorf("a machine whose cable is mended: %v", err)
	}
}
