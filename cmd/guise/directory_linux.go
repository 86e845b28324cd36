package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/guise-project/guise/internal/secureexec"
)

// pipeDirectory returns the directory that guise.Listen takes for a name, by the same rules, without making it.
func pipeDirectory() (string, error) {
	trusted := !secureexec.Is()
	if dir := os.Getenv("GUISE_DIR"); dir != "" && trusted {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return "/run/guise/pipe", nil
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" || !trusted {
		return "", errors.New("XDG_RUNTIME_DIR is not set: a server takes a path, a socket from systemd, or GUISE_DIR")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("XDG_RUNTIME_DIR: %w", err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return "", fmt.Errorf("XDG_RUNTIME_DIR is %s, which belongs to uid %d", dir, owner)
	}
	return filepath.Join(dir, "guise", "pipe"), nil
}
