package machines_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/machines"
	"github.com/guise-project/guise/internal/machinestest"
)

// role says what the test binary is to do in place of running tests.
const role = "GUISE_TEST_MACHINES_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "wait":
		wait()
	case "who":
		name, _ := os.Hostname()
		fmt.Println(os.Getuid(), os.Getgid(), name)
		os.Exit(0)
	}
	os.Exit(leftover.Main(m))
}

// wait starts machines, says where they are, and waits to be killed.
func wait() {
	n, err := machines.Start(context.Background(), &machines.Config{Accounts: people, Machines: 2})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(n.Dir)
	select {}
}

// people are the accounts of the tests.
var people = []machines.Account{
	{
		Name: "alice", UID: 61001, GID: 61001, Password: `of "alice" & $HOME`,
		Groups: []machines.Group{{Name: "staff", GID: 61100}, {Name: "audit", GID: 61101}},
	},
	{Name: "bob", UID: 61002, GID: 61100, Password: "of bob"},
	{Name: "local", UID: 61003, GID: 61003},
}

var alice = people[0]

// start makes machines for a test.
func start(t *testing.T, c *machines.Config) *machines.Network {
	t.Helper()
	machinestest.Need(t)
	begun := time.Now()
	n, err := machines.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(begun).Round(time.Millisecond))
	t.Cleanup(func() {
		begun := time.Now()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		t.Logf("closed in %v", time.Since(begun).Round(time.Millisecond))
	})
	return n
}

// until waits for something that happens by itself.
func until(t *testing.T, what func() error) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := what()
		if err == nil {
			return
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatal("this is still so: ", err)
		}
	}
}

// output returns what a program on a machine says, and fails the test if it fails.
func output(t *testing.T, m *machines.Machine, account, name string, args ...string) string {
	t.Helper()
	cmd := m.Command(t.Context(), name, args...)
	if account != "" {
		cmd = m.CommandAs(t.Context(), account, name, args...)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %q on %s as %q: %v: %s", name, args, m.Name, account, err, out)
	}
	return string(out)
}
