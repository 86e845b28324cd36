package token

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Hop is a process that a context came through.
type Hop struct {
	// PID is the process, as the next one on the way numbers it. By the time anybody looks, the number may be another's.
	PID int `json:"pid"`
	// UID and GID are the process's own, real ids as they were when it was first looked at; 4294967295 where they could not be seen.
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	// Program is the path of the process's executable as the kernel knows it, "" where it could not be seen.
	Program string `json:"program"`
}

// UnknownHop is a process of which nothing could be seen.
var UnknownHop = Hop{UID: invalidID, GID: invalidID}

// HopOf returns the process at the other end of a Unix socket. What can't be seen of it is left out.
func HopOf(fd int) Hop {
	hop := UnknownHop
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || cred.Pid <= 0 {
		return hop
	}
	hop.PID = int(cred.Pid)
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		return hop
	}
	defer unix.Close(pidfd)
	seen := hop
	process := "/proc/" + strconv.Itoa(hop.PID)
	seen.UID, seen.GID = realIDs(process + "/status")
	if seen.Program, err = os.Readlink(process + "/exe"); err != nil {
		seen.Program = ""
	}
	if !Alive(pidfd) { // what was seen may be another process's
		return hop
	}
	return seen
}

func realIDs(status string) (uid, gid uint32) {
	uid, gid = invalidID, invalidID
	b, err := os.ReadFile(status)
	if err != nil {
		return uid, gid
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		id, err := strconv.ParseUint(fields[1], 10, 32)
		switch {
		case err != nil:
		case fields[0] == "Uid:":
			uid = uint32(id)
		case fields[0] == "Gid:":
			gid = uint32(id)
		}
	}
	return uid, gid
}

// Via returns the processes that the context came through, the origin's first and the peer last; nil if the peer speaks for
// itself. The peer is as this machine's kernel shows it. What it says of those before it is believed only of a peer that
// could have become them.
func (t *Token) Via() []Hop { return append([]Hop(nil), t.via...) }

// Through returns t with its way, and with the origin that whoever passed it on told of, nil if that is none.
func (t *Token) Through(via []Hop, origin *Origin) *Token {
	if len(t.via) == 0 && len(via) == 0 && origin == nil {
		return t
	}
	u := *t
	u.via = via
	if origin != nil {
		u.from(origin)
	}
	return &u
}
