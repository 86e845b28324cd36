package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/token"
)

// fileIDs returns whose a file is.
func fileIDs(path string) (uid, gid uint32, err error) {
	var st unix.Stat_t
	err = unix.Lstat(path, &st)
	return st.Uid, st.Gid, err
}

// hopOf returns a process as proc(5) shows it now. In a container root may not see its program.
func hopOf(pid int) (hop token.Hop, err error) {
	hop.PID = pid
	if hop.Program, err = os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return hop, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return hop, err
	}
	for line := range strings.Lines(string(b)) {
		// The real id comes first.
		for name, id := range map[string]*uint32{"Uid:": &hop.UID, "Gid:": &hop.GID} {
			if value, ok := strings.CutPrefix(line, name); ok {
				if _, err := fmt.Sscan(value, id); err != nil {
					return hop, fmt.Errorf("process %d has no real id in /proc: %w", pid, err)
				}
			}
		}
	}
	return hop, nil
}

// dialSilently connects as a program that does not know guise.
func dialSilently(path string) (net.Conn, error) { return net.Dial("unix", path) }
