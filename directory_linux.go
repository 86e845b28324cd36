package guise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/guise-project/guise/internal/secureexec"
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

// makeDirectory makes the last two elements of a directory for names: everybody may look in, only its owner may put
// something there.
func makeDirectory(dir string) error {
	for _, d := range []string{filepath.Dir(dir), dir} {
		err := os.Mkdir(d, 0o755)
		if err == nil {
			err = os.Chmod(d, 0o755) // whatever the umask
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// checkDirectory returns an error if somebody else could put a socket in dir, or dir elsewhere. Above dir a directory with
// the sticky bit will do, such as /tmp: nobody else can rename what is in it.
func checkDirectory(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	for d, leaf := dir, true; ; d, leaf = filepath.Dir(d), false {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("%s is no directory", d)
		}
		stat := info.Sys().(*syscall.Stat_t)
		if stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
			return fmt.Errorf("%s belongs to uid %d, who could put another server in this one's place; it has to be root's or one's own", d, stat.Uid)
		}
		if info.Mode().Perm()&0o022 != 0 && (leaf || info.Mode()&fs.ModeSticky == 0) {
			return fmt.Errorf("others can write to %s (mode %s), so they could put another server in this one's place; take a directory that is one's own",
				d, strings.TrimPrefix(info.Mode().String(), "d"))
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}
