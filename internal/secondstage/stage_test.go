package secondstage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/internal/without"
	"github.com/guise-project/guise/token"
)

// Tests change threads for good, which end with their goroutines; the first one can't.
func init() { runtime.LockOSThread() }

// keyRole has the test binary look for a key, as the program that a second stage runs.
const keyRole = "GUISE_TEST_LOOKS_FOR_KEY"

func TestMain(m *testing.M) {
	if name, ok := os.LookupEnv(keyRole); ok {
		lookForKey(name)
		os.Exit(0)
	}
	os.Exit(leftover.Main(m))
}

// client is who the programs are to be.
const client = 61001

// stage returns a second stage. It is a child of the thread that starts it, and has of that what fork(2) hands on.
func stage(o Order) *exec.Cmd {
	return &exec.Cmd{Path: "/proc/self/exe", Args: o.Arguments(), Env: append(os.Environ(), "GORACE=atexit_sleep_ms=0")}
}

// onThread calls f on a thread that ends with it. An error of f's is a reason to skip the test.
func onThread(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Skip(err)
	}
}

func lookForKey(name string) {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", name, 0)
	if err != nil {
		fmt.Println("not found:", err)
		return
	}
	secret := make([]byte, 100)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, secret, len(secret))
	fmt.Printf("found: %q, %v\n", secret[:max(0, min(n, len(secret)))], err)
}

// The server's session keyring would be the program's, who could read the keys in it, whoever it is.
func TestProgramHasNotTheServersKeys(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: to be somebody else")
	}
	const name, secret = "guise-test-key", "the server's secret"
	dir := testdir.Open(t, 0o755)
	path := dir + "/program" // which the client may run
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	onThread(t, func() error {
		if _, _, e := syscall.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0); e != 0 {
			return fmt.Errorf("this machine has no keyrings: %w", e)
		}
		if _, err := unix.AddKey("user", name, []byte(secret), unix.KEY_SPEC_SESSION_KEYRING); err != nil {
			return fmt.Errorf("add_key: %w", err)
		}
		run := func(cmd *exec.Cmd) string {
			cmd.Env = append(cmd.Env, keyRole+"="+name)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("the program ended with %v: %s", err, out)
			}
			return string(out)
		}
		if got, want := run(exec.Command(path)), fmt.Sprintf("found: %q, <nil>\n", secret); got != want {
			t.Errorf("a program of the server's own says %q, want %q: the test sets up nothing", got, want)
		}
		if got := run(stage(Order{UID: client, GID: client, Name: path, Args: []string{path}})); !strings.HasPrefix(got, "not found: ") {
			t.Errorf("a program of uid %d looks for the server's key in its session keyring: %s", client, got)
		}
		return nil
	})
}

// A system call that claims to have worked, and has done nothing, must not have a program run with the server's rights.
func TestProgramDoesNotRunAsHalfTheClient(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: to be somebody else")
	}
	other := Order{UID: client, GID: client, Groups: []uint32{client + 1}, Name: "/bin/echo", Args: []string{"echo", "it runs"}}
	root := other
	root.UID, root.Capabilities = 0, token.Capabilities{}
	for _, c := range []struct {
		name  string
		call  uintptr // does nothing; 0: all work
		order Order
		runs  bool
	}{
		{"all work", 0, other, true},
		{"setgroups", unix.SYS_SETGROUPS, other, false},
		{"setresgid", unix.SYS_SETRESGID, other, false},
		{"setresuid", unix.SYS_SETRESUID, other, false},
		{"all work for root", 0, root, true},
		{"capset", unix.SYS_CAPSET, root, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			onThread(t, func() error {
				if c.call != 0 {
					if err := without.Call(c.call, 0); err != nil {
						return fmt.Errorf("a system call can't be made to do nothing here: %w", err)
					}
				}
				out, err := stage(c.order).CombinedOutput()
				if c.runs {
					if err != nil || string(out) != "it runs\n" {
						t.Errorf("the program says %q, %v", out, err)
					}
					return nil
				}
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != StatusFailed || !strings.Contains(string(out), "other ids or capabilities") {
					t.Errorf("with a %s that does nothing the stage ends with %v and says %q, want exit status %d and why", c.name, err, out, StatusFailed)
				}
				return nil
			})
		})
	}
}
