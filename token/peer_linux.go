package token

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of returns the token of the peer of a Unix-domain socket: on a server's side the context of whoever connected, frozen by
// the kernel at that moment; on a client's side that of whoever called listen(2) last (for a socket that was handed over by
// systemd that is systemd, unless the server called it again). Later changes, an exec, or handing the socket to another
// process don't show.
//
// The ids are the effective ones, the groups the supplementary ones (SO_PEERCRED and SO_PEERGROUPS, unix(7)). A token of uid 0
// has the capabilities that its process is seen to have now; none if that can't be seen.
//
// A connection that knows its peer better than its socket does, as one from another machine, has a method Peer, which is asked
// instead.
//
// It fails on sockets that are not AF_UNIX or not connected, and if the kernel refuses an answer.
func Of(c syscall.Conn) (*Token, error) {
	if knows, ok := c.(interface{ Peer() (*Token, error) }); ok {
		return knows.Peer()
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("token of a peer: %w", err)
	}
	var t *Token
	var peerErr error
	if err := raw.Control(func(fd uintptr) { t, peerErr = OfDescriptor(int(fd)) }); err != nil {
		return nil, fmt.Errorf("token of a peer: %w", err)
	}
	return t, peerErr
}

// OfDescriptor is [Of] for a descriptor, which stays the caller's.
func OfDescriptor(fd int) (*Token, error) {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, fmt.Errorf("token of a peer: asking for the socket's family: %w", err)
	}
	if family != unix.AF_UNIX {
		return nil, fmt.Errorf("token of a peer: %w: the socket is of family %d, only AF_UNIX ones have peers with ids", ErrNotWearable, family)
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("token of a peer: asking for its ids (SO_PEERCRED): %w", err)
	}
	if cred.Uid == invalidID || cred.Gid == invalidID {
		return nil, fmt.Errorf("token of a peer: %w: the kernel reports no ids; the socket is not connected", ErrNotWearable)
	}
	groups, kept, err := peerGroups(fd)
	if err != nil {
		return nil, fmt.Errorf("token of a peer: asking for its groups (SO_PEERGROUPS): %w", err)
	}
	t := &Token{
		uid: cred.Uid, gid: cred.Gid, groups: groups, kept: kept,
		claimed: AllCapabilities,
		label:   peerLabel(fd),
		source:  Source{Kind: FromPeer, PID: int(cred.Pid)},
	}
	t.obstacle = t.unreported()
	switch {
	case t.obstacle != nil:
	case cred.Pid <= 0:
		t.obstacle = &obstacle{reason: "the kernel reports no pid: the peer's process is not visible in this pid namespace"}
	case t.uid == 0:
		look := lookAtRoot(fd, int(cred.Pid))
		t.seen, t.obstacle = look.capabilities, look.obstacle
	}
	return t, nil
}

// LookAgain returns t with the capabilities that the peer of fd is seen to have now, and t itself if nothing changed or t is
// not of uid 0. A peer that can't be seen any more has none.
func (t *Token) LookAgain(fd int) *Token {
	if t.uid != 0 {
		return t
	}
	seen := Capabilities{}
	if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && cred.Pid > 0 {
		seen = lookAtRoot(fd, int(cred.Pid)).capabilities
	}
	if seen == t.seen {
		return t
	}
	u := *t
	u.seen = seen
	return &u
}

// AsProof returns t marked as what a client announced and the kernel proved.
func (t *Token) AsProof() *Token {
	u := *t
	u.source.Kind = FromProof
	return &u
}

// PeerGroups returns the supplementary groups of the peer of a Unix socket, sorted (SO_PEERGROUPS); the slice is the caller's.
func PeerGroups(fd int) ([]uint32, error) {
	groups, _, err := peerGroups(fd)
	return slices.Clone([]uint32(groups)), err
}

// peerGroups asks with room for an ordinary account's groups first; the kernel says how much it needs if that is too little.
func peerGroups(fd int) (groupList, keptList, error) {
	var short [shortList]uint32
	groups, size, err := readPeerGroups(fd, short[:])
	if err == nil {
		return append(groupList(nil), groups...), keptList{}, nil
	}
	buf := longBuffers.Get().(*[]uint32)
	for errors.Is(err, unix.ERANGE) {
		*buf = slices.Grow((*buf)[:0], int(size/4))
		groups, size, err = readPeerGroups(fd, (*buf)[:cap(*buf)])
	}
	if err != nil {
		return nil, keptList{}, err
	}
	list, kept, own := shareGroups(groups)
	if !own {
		longBuffers.Put(buf)
	}
	return list, kept, nil
}

// longBuffers are what long lists are read into.
var longBuffers = sync.Pool{New: func() any { return new([]uint32) }}

// CountPeerGroups returns how many supplementary groups the peer of a Unix socket has, without reading more than a few.
func CountPeerGroups(fd int) (int, error) {
	var few [32]uint32
	groups, size, err := readPeerGroups(fd, few[:])
	if errors.Is(err, unix.ERANGE) {
		return int(size / 4), nil
	}
	return len(groups), err
}

func readPeerGroups(fd int, buf []uint32) (groups []uint32, size uint32, err error) {
	size = uint32(len(buf) * 4)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil, size, errno
	}
	return buf[:size/4], size, nil
}

// peerLabel returns "" where no LSM labels sockets: the label is information, no right depends on it.
func peerLabel(fd int) string {
	s, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_PEERSEC)
	if err != nil {
		return ""
	}
	return s
}
