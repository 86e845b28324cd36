package main

import (
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/guise-project/guise/internal/actor"
)

// asProgram is set in the environment of a process that is to be the program and not its tests.
const asProgram = "GUISE_TEST_MAIN"

func TestMain(m *testing.M) {
	actor.PlayIfAsked()
	if os.Getenv(asMiddle) == "1" {
		playMiddle(os.Args[1], os.Args[2])
	}
	if os.Getenv(asPasser) == "1" {
		playPasser(os.Args[1], os.Args[2])
	}
	if os.Getenv(asMeddler) == "1" {
		playMeddler()
	}
	if os.Getenv(asProgram) == "1" {
		main()
		os.Exit(0)
	}
	status := m.Run()
	if dir := filepath.Dir(executable.path); executable.path != "" {
		os.RemoveAll(dir)
	}
	os.Exit(status)
}

var executable struct {
	once sync.Once
	path string
	err  error
}

// program returns the path of an executable that is the program, as far as asProgram is set, and that everybody may run: the
// directory of the test's own is closed to others.
func program(t *testing.T) string {
	t.Helper()
	executable.once.Do(func() { executable.path, executable.err = copyExecutable() })
	if executable.err != nil {
		t.Fatalf("the test's own executable can't be copied to where other users may run it: %v", executable.err)
	}
	return executable.path
}

func copyExecutable() (string, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer self.Close()
	dir, err := os.MkdirTemp("", "guise-program-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "guise")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, self)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Chmod(path, 0o755)
	}
	return path, err
}
