package machines

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// copies are the programs that were brought into the machines, by their path outside.
type copies struct {
	sync.Mutex
	made map[string]*copied
}

type copied struct {
	info   os.FileInfo // of what was copied
	inside string
}

// Install copies a program of this machine's, such as a test binary (/proc/self/exe is one), to where every account of every machine can
// run it, and returns its path there. A second call for the same file copies nothing.
func (m *Machine) Install(path string) (inside string, err error) {
	inside, err = m.network.install(path)
	if err != nil {
		return "", fmt.Errorf("installing %s in machines: %w", path, err)
	}
	return inside, nil
}

func (n *Network) install(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	n.copies.Lock()
	defer n.copies.Unlock()
	from, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return "", err
	}
	if c := n.copies.made[path]; c != nil && os.SameFile(c.info, info) && c.info.Size() == info.Size() && c.info.ModTime().Equal(info.ModTime()) {
		return c.inside, nil
	}
	dir, err := os.MkdirTemp(n.Dir, "bin-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	inside := filepath.Join(dir, filepath.Base(path))
	to, err := os.OpenFile(inside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Chmod(0o755), to.Close()); err != nil {
		return "", err
	}
	if n.copies.made == nil {
		n.copies.made = make(map[string]*copied)
	}
	n.copies.made[path] = &copied{info, inside}
	return inside, nil
}
