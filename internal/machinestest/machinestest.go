// Package machinestest has machines of package machines for tests.
package machinestest

import (
	"os"
	"testing"

	"github.com/guise-project/guise/internal/machines"
)

// Need skips the test where machines can't be made, or fails it where they have to be.
func Need(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes namespaces")
	}
	if err := machines.Missing(); err != nil {
		Missing(t, err)
	}
}

// Missing skips the test for a reason, or fails it where the environment says that nothing may be missing: GUISE_MACHINES=required.
func Missing(t testing.TB, reason any) {
	t.Helper()
	if os.Getenv("GUISE_MACHINES") == "required" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Start makes machines, until the end of the test.
func Start(t testing.TB, c *machines.Config) *machines.Network {
	t.Helper()
	Need(t)
	n, err := machines.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}
