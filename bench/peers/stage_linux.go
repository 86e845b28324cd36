package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/role"
)

// alice is the user whom everything is done for.
var alice = role.IDs{UID: 61020, GID: 61021, Groups: []uint32{61022, 61023, 61024}}

// asAlice starts processes as her.
var asAlice = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: alice.UID, Gid: alice.GID, Groups: alice.Groups}}

const aliceName = "guise-alice"

// contents is what is in her file, which only she can read.
var contents = []byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n")

func fileOf(dir string) string { return filepath.Join(dir, "alice", "file") }

// secretOf is a file with the same in it that only root can read.
func secretOf(dir string) string { return filepath.Join(dir, "secret") }

// stage is where all is measured: the process of it has a mount namespace with accounts of its own.
type stage struct {
	dir string
}

func playStage(args []string) (err error) {
	// What is left over if this process is killed is gone with its namespace.
	if err := unix.Mount("guise-peers", os.TempDir(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return fmt.Errorf("mounting a file system in memory on %s: %w", os.TempDir(), err)
	}
	dir, err := os.MkdirTemp("", "guise-peers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &stage{dir: dir}
	if err := s.furnish(); err != nil {
		return err
	}
	var found any
	if len(args) > 0 && args[0] == "try" {
		found, err = s.try()
	} else {
		found, err = s.measure()
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

// furnish makes the file, and an account that programs find by its name: what is in the machine's own files stays, and is seen
// with hers, here alone.
func (s *stage) furnish() error {
	own := filepath.Dir(fileOf(s.dir))
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(own, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(fileOf(s.dir), contents, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(secretOf(s.dir), contents, 0o600); err != nil {
		return err
	}
	for _, path := range []string{own, fileOf(s.dir)} {
		if err := os.Chown(path, int(alice.UID), int(alice.GID)); err != nil {
			return err
		}
	}
	groups := fmt.Sprintf("%s:x:%d:\n", aliceName, alice.GID)
	for i, gid := range alice.Groups {
		groups += fmt.Sprintf("guise-group-%d:x:%d:%s\n", i, gid, aliceName)
	}
	for _, f := range []struct{ path, lines string }{
		{"/etc/passwd", fmt.Sprintf("%s:x:%d:%d::/:/bin/sh\n", aliceName, alice.UID, alice.GID) + busAccount},
		{"/etc/group", groups},
		{"/etc/shadow", aliceName + ":*:19000:0:99999:7:::\n"},
	} {
		if err := s.extend(f.path, f.lines); err != nil {
			return err
		}
	}
	return nil
}

// extend adds lines to a file of the machine's as the stage and what it starts see it.
func (s *stage) extend(path, lines string) error {
	was, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	copied := filepath.Join(s.dir, filepath.Base(path))
	if err := os.WriteFile(copied, append(was, lines...), info.Mode().Perm()); err != nil {
		return err
	}
	if err := unix.Mount(copied, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting an account's lines over %s: %w", path, err)
	}
	return nil
}
