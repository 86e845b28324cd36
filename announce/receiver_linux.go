package announce

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/token"
)

// ErrUnproven says that a client announced a context that the kernel does not prove to be its own.
var ErrUnproven = errors.New("the kernel does not prove the announced context")

// Receiver is the server's end of a control channel. Its methods must not be called at the same time.
type Receiver struct {
	fd       int
	peer     peer
	sequence uint64
	in       inbox
}

// peer is the process at the other end of the pipe.
type peer struct {
	pid   int32
	inode uint64 // of its pidfd; 0 where the kernel has no SO_PEERPIDFD or no pidfs
}

// newReceiver takes over fd.
func newReceiver(fd, pipe int) (*Receiver, error) {
	r := &Receiver{fd: fd}
	err := unnamedPair(fd)
	if err == nil {
		// Only now: with SO_PASSCRED a socket gives itself a name when it sends.
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}
	if err != nil {
		discard.Descriptor(fd)
		return nil, fmt.Errorf("%w: the preface's descriptor is no control channel: %w", ErrProtocol, err)
	}
	if cred, err := unix.GetsockoptUcred(pipe, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
		r.peer.pid = cred.Pid
	}
	return r, nil
}

// Hello receives the client's first message, which has to be there already.
func (r *Receiver) Hello() (Hello, error) {
	m, got, err := r.receive()
	discard.Descriptor(got.descriptor)
	switch {
	case err != nil:
		return Hello{}, err
	case m == nil:
		return Hello{}, fmt.Errorf("%w: the control channel came without a hello on it", ErrProtocol)
	}
	h, ok := m.(Hello)
	if !ok || got.descriptor >= 0 {
		return Hello{}, fmt.Errorf("%w: the first control message is not a plain hello", ErrProtocol)
	}
	return h, nil
}

// Follow makes ready for contexts of the process at the other end of pipe. An error that wraps [ErrCannotProve] says that this
// kernel can't prove any; others that something is missing for now.
func (r *Receiver) Follow(pipe int) error {
	inode, pidfd, err := peerProcess(pipe)
	switch {
	case err == nil:
		unix.Close(pidfd)
		r.peer.inode = inode
		return nil
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL):
		// A process that has gone announces nothing more; its last context stands.
		return nil
	case errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, errNoPidfs):
		return fmt.Errorf("%w: %w", ErrCannotProve, err)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w: %w", ErrNoDescriptors, err)
	}
	return fmt.Errorf("asking for the client's process: %w", err)
}

// ErrCannotProve says that this kernel has no means to prove a client's changes.
var ErrCannotProve = errors.New("this kernel can't prove changes of a client's context")

// Announced is a context that the kernel proved.
type Announced struct {
	Token  *token.Token
	Source uint64
	At     uint64
}

// Next returns the next context that the client announced; nil if none waits. After [io.EOF] none will come. Other errors end
// the connection: they wrap [ErrProtocol], [ErrNoDescriptors] or [ErrUnproven].
//
// A context is believed only if it comes with a token socket that
//   - only socketpair(2) can have made: AF_UNIX, SOCK_SEQPACKET and no name on either side. An accepted connection, which
//     could carry the ids of a set-user-ID program that the client made connect somewhere, has a name on one side;
//   - the pipe's client process made (same pidfd inode), which is alive now;
//   - has the ids that the message claims in explicit SCM_CREDENTIALS with that process's pid: the kernel lets a sender claim
//     only ids that it may take at that moment, so old sockets die with the right to their ids;
//   - has a sequence number above the one before.
func (r *Receiver) Next() (*Announced, error) {
	m, got, err := r.receive()
	dispose := discard.Descriptor
	defer func() { dispose(got.descriptor) }()
	if m == nil || err != nil {
		return nil, err
	}
	c, ok := m.(Context)
	if !ok {
		return nil, fmt.Errorf("%w: a control message that a client must not send, or not again: %T", ErrProtocol, m)
	}
	if got.descriptor < 0 {
		return nil, fmt.Errorf("%w: it came without a token socket", ErrUnproven)
	}
	if c.Sequence <= r.sequence {
		return nil, fmt.Errorf("%w: its sequence number %d does not rise above %d", ErrUnproven, c.Sequence, r.sequence)
	}
	t, err := r.peer.prove(got.descriptor, got.cred)
	if err != nil {
		return nil, err
	}
	dispose = discard.PairEnd
	r.sequence = c.Sequence
	return &Announced{
		Token:  t.Restrict(token.Statement{Level: c.Level, EffectiveOnly: c.EffectiveOnly, Capabilities: c.Capabilities}),
		Source: c.Source,
		At:     c.At,
	}, nil
}

// receive returns the next message, nil if none waits.
func (r *Receiver) receive() (any, received, error) {
	got, err := r.in.recv(r.fd, true)
	if err == unix.ECONNRESET {
		// The client closed its end with something of ours unread. What it had sent before is still there.
		got, err = r.in.recv(r.fd, true)
	}
	switch {
	case err == unix.EAGAIN:
		return nil, got, nil
	case err != nil:
		return nil, got, fmt.Errorf("receiving a control message: %w", err)
	case got.lost:
		return nil, got, fmt.Errorf("receiving a control message: %w", ErrNoDescriptors)
	case len(got.data) == 0 && got.cred == nil:
		return nil, got, io.EOF
	}
	m, err := decode(got.data)
	return m, got, err
}

// Tell sends the client what is in force. A client that does not listen is left alone.
func (r *Receiver) Tell(f InForce) { r.send(f.encode()) }

// Refuse tells the client why its connection ends.
func (r *Receiver) Refuse(why Refusal) { r.send(why.encode()) }

func (r *Receiver) send(b []byte) {
	_ = unix.Sendmsg(r.fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// Close closes the server's end. Its queue may hold what a stranger put there; then that is not closed on the caller's time.
func (r *Receiver) Close() {
	discard.PairEnd(r.fd)
	r.fd = -1
}

// RefusalFor returns what to tell a client whose connection ends with err.
func RefusalFor(err error) Refusal {
	var version *VersionError
	switch {
	case errors.As(err, &version):
		return RefusedVersion
	case errors.Is(err, ErrUnproven):
		return RefusedProof
	case errors.Is(err, ErrNoDescriptors):
		return RefusedBusy
	case errors.Is(err, token.ErrLevel):
		return RefusedLevel
	}
	return RefusedProtocol
}

// prove returns the token that the token socket fd, which stays the caller's, and the claim that came with it prove.
func (p peer) prove(fd int, claim *unix.Ucred) (*token.Token, error) {
	if err := unnamedPair(fd); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	inode, pidfd, err := peerProcess(fd)
	if err != nil {
		return nil, fmt.Errorf("%w: asking which process made the token socket: %w", ErrUnproven, err)
	}
	defer unix.Close(pidfd)
	if p.inode == 0 || inode != p.inode {
		return nil, fmt.Errorf("%w: another process than the pipe's client made the token socket", ErrUnproven)
	}
	t, err := token.OfDescriptor(fd)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	switch {
	case claim == nil:
		return nil, fmt.Errorf("%w: it came without credentials", ErrUnproven)
	case claim.Pid != p.pid || t.Source().PID != int(p.pid):
		return nil, fmt.Errorf("%w: it was sent by process %d, the pipe's client is process %d", ErrUnproven, claim.Pid, p.pid)
	case claim.Uid != t.UID() || claim.Gid != t.GID():
		return nil, fmt.Errorf("%w: the sender claims uid %d and gid %d, the token socket has uid %d and gid %d",
			ErrUnproven, claim.Uid, claim.Gid, t.UID(), t.GID())
	case !token.Alive(pidfd):
		return nil, fmt.Errorf("%w: process %d has gone", ErrUnproven, p.pid)
	}
	return t.AsProof(), nil
}

// unnamedPair returns an error unless fd is a SOCK_SEQPACKET socket that socketpair(2) made.
func unnamedPair(fd int) error {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("it is no socket: %w", err)
	}
	if family != unix.AF_UNIX {
		return fmt.Errorf("it is a socket of family %d", family)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return fmt.Errorf("asking for the socket's type: %w", err)
	}
	if kind != unix.SOCK_SEQPACKET {
		return fmt.Errorf("it is a socket of type %d, not SOCK_SEQPACKET", kind)
	}
	for _, side := range [...]struct {
		call uintptr
		name string
	}{{unix.SYS_GETSOCKNAME, "its own"}, {unix.SYS_GETPEERNAME, "its peer's"}} {
		var name unix.RawSockaddrUnix
		length := uint32(unsafe.Sizeof(name))
		if _, _, e := unix.Syscall(side.call, uintptr(fd), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&length))); e != 0 {
			return fmt.Errorf("asking for %s side's name: %w", side.name, e)
		}
		// The bare family: the name of an abstract socket may look empty too, its length never does.
		if length != uint32(unsafe.Sizeof(name.Family)) {
			return fmt.Errorf("%s side has a name, so it was not made by socketpair", side.name)
		}
	}
	return nil
}

// peerProcess returns the inode number of the pidfd of the process at the other end of fd, and that pidfd.
func peerProcess(fd int) (inode uint64, pidfd int, err error) {
	pidfd, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		return 0, -1, err
	}
	inode, err = pidfdInode(pidfd)
	if err != nil {
		unix.Close(pidfd)
		return 0, -1, err
	}
	return inode, pidfd, nil
}

// pidfdInode returns the number that names the process for as long as the machine is up. Before Linux 6.9 pidfds had no file
// system of their own, and all of them the same inode.
func pidfdInode(pidfd int) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(pidfd, &fs); err != nil {
		return 0, err
	}
	if fs.Type != unix.PID_FS_MAGIC {
		return 0, errNoPidfs
	}
	var st unix.Stat_t
	if err := unix.Fstat(pidfd, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

var errNoPidfs = errors.New("this kernel has no pidfs (Linux 6.9)")
