// Package testdir makes directories for tests whose processes have other ids: t.TempDir is closed to them.
package testdir

import (
	"os"
	"testing"
)

// Open makes a directory with the given mode, which every user can reach, and removes it after the test.
func Open(t testing.TB, mode os.FileMode) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "guise-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return dir
}
