package main

import (
	"net"

	"golang.org/x/sys/unix"
)

// fileIDs returns whose a file is.
func fileIDs(path string) (uid, gid uint32, err error) {
	var st unix.Stat_t
	err = unix.Lstat(path, &st)
	return st.Uid, st.Gid, err
}

// dialSilently connects as a program that does not know guise.
func dialSilently(path string) (net.Conn, error) { return net.Dial("unix", path) }
