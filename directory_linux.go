package guise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/guise-project/guise/internal/secureexec"
	"github.com/guise-project/guise/internal/socketfile"
)

// systemDirectory has the pipes of root's services. Only root can take a name there.
const systemDirectory = "/run/guise/pipe"

// directories returns where a name is looked for, first to last.
func directories() []string {
	if !secureexec.Is() {
		if dir := os.Getenv("GUISE_DIR"); dir != "" {
			return []string{dir}
		}
		if dir, err := userDirectory(); err == nil {
			return []string{systemDirectory, dir}
		}
	}
	return []string{systemDirectory}
}

// Directory returns where the pipes that this process makes by name go: root's in the system's directory, a user's in a
// directory of the user's own. It need not be there yet.
func Directory() (string, error) {
	if !secureexec.Is() {
		if dir := os.Getenv("GUISE_DIR"); dir != "" {
			return dir, nil
		}
	}
	if os.Geteuid() == 0 {
		return systemDirectory, nil
	}
	if secureexec.Is() {
		return "", errors.New("a set-user-ID program that is not root needs a path for its pipe")
	}
	return userDirectory()
}

func userDirectory() (string, error) {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		return "", errors.New("XDG_RUNTIME_DIR is not set; a server that is not root takes a path, a socket from systemd, or GUISE_DIR")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("XDG_RUNTIME_DIR: %w", err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return "", fmt.Errorf("XDG_RUNTIME_DIR is %s, which belongs to uid %d and not to uid %d", dir, owner, os.Geteuid())
	}
	return filepath.Join(dir, "guise", "pipe"), nil
}

// namesMissing says what is made of a directory for names: the last two elements. Everybody may look in, only its owner may put
// something there.
var namesMissing = socketfile.Missing{Most: 2, Mode: 0o755, Above: 0o755}
