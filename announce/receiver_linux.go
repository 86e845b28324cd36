package announce

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/unixsocket"
	"github.com/guise-project/guise/token"
)

// ErrUnproven says that a client announced a context that the kernel does not prove to be its own.
var ErrUnproven = errors.New("the kernel does not prove the announced context")

// Receiver is the server's end of a control channel. Its methods must not be called at the same time.
type Receiver struct {
	fd       int
	peer     peer
	sequence uint64
	way      *Way // of the message that comes next
}

// peer is the process at the other end of the pipe.
type peer struct {
	pid   int32
	uid   uint32 // who answers for the descriptors that come
	inode uint64 // of its pidfd; 0 where the kernel has no SO_PEERPIDFD or no pidfs
}

// pipePeer returns the process at the other end of a pipe, as the kernel froze it. It is nobody's if the kernel does not say.
func pipePeer(pipe int) peer {
	cred, err := unix.GetsockoptUcred(pipe, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return peer{uid: ^uint32(0)}
	}
	return peer{pid: cred.Pid, uid: cred.Uid}
}

// newReceiver takes over fd.
func newReceiver(fd int, of peer) (*Receiver, error) {
	r := &Receiver{fd: fd, peer: of}
	err := unnamedPair(fd)
	if err == nil {
		// Only now: with SO_PASSCRED a socket gives itself a name when it sends.
		if err = unixsocket.BeginStranger(of.uid); err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
			unixsocket.EndStranger(of.uid)
		}
	}
	if err != nil {
		discard.Descriptor(fd, of.uid)
		return nil, fmt.Errorf("%w: the preface's descriptor is no control channel: %w", ErrProtocol, err)
	}
	return r, nil
}

// Hello receives the client's first message, which has to be there already, and the way that its context came, nil if the client
// speaks for itself.
func (r *Receiver) Hello() (Hello, *Way, error) {
	m, got, err := r.receive()
	discard.Descriptor(got.descriptor, r.peer.uid)
	switch {
	case errors.Is(err, ErrLeftOut):
		return Hello{}, nil, fmt.Errorf("%w: the first control message is not a plain hello, but one way after another", ErrProtocol)
	case err != nil:
		return Hello{}, nil, err
	case m == nil:
		return Hello{}, nil, fmt.Errorf("%w: the control channel came without a hello on it", ErrProtocol)
	}
	h, ok := m.(Hello)
	if !ok || got.descriptor >= 0 {
		return Hello{}, nil, fmt.Errorf("%w: the first control message is not a plain hello", ErrProtocol)
	}
	return h, r.takeWay(), nil
}

// takeWay returns the way that came just before, which counts for one message.
func (r *Receiver) takeWay() *Way {
	w := r.way
	r.way = nil
	return w
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

// ErrLeftOut is what Next returns for a context that does not count, and breaks nothing; and for many ways in a row, of which only the
// last counts. More may wait.
var ErrLeftOut = errors.New("a context that does not count")

// Announced is a context that the kernel proved, or one that is lost.
type Announced struct {
	Token    *token.Token // nil if it is lost
	Sequence uint64
	Source   uint64
	// Now says that the context has changed between writes, and At, if it has not, where it begins.
	Now bool
	At  uint64
	// Proof is what proved it, and the caller's to release.
	Proof *Proof
	// Way is how the context came to the client, nil if it is the client's own.
	Way *Way
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
//
// A context that changed between writes of a process that has gone since is left out, with [ErrLeftOut]: the last proven one stands. What was written
// under one that can't be proved any more is not acted on at all.
//
// The second does not count for a client that says, in a message just before, which way the context came: the ids which that
// message claims show that the client could have become anybody.
func (r *Receiver) Next() (*Announced, error) {
	m, got, err := r.receive()
	dispose := discard.Descriptor
	defer func() {
		if dispose != nil {
			dispose(got.descriptor, r.peer.uid)
		}
	}()
	if m == nil || err != nil {
		return nil, err
	}
	way := r.takeWay()
	switch m := m.(type) {
	case Context:
		if got.descriptor < 0 {
			return nil, fmt.Errorf("%w: it came without a token socket", ErrUnproven)
		}
		if err := r.rises(m.Sequence); err != nil {
			return nil, err
		}
		t, err := r.peer.prove(got.descriptor, got.cred, way != nil)
		if m.Now && (errors.Is(err, errGone) || err == nil && t.Gone()) {
			dispose = discard.Socket
			return nil, ErrLeftOut // its last proven context stands
		}
		if err != nil {
			return nil, err
		}
		dispose = nil
		return &Announced{
			Token:    t.Restrict(token.Statement{Level: m.Level, EffectiveOnly: m.EffectiveOnly, Capabilities: m.Capabilities, Network: m.Network}),
			Sequence: m.Sequence, Source: m.Source, Now: m.Now, At: m.At, Way: way,
			Proof: newProof(got.descriptor, r.peer.uid, t),
		}, nil
	case Lost:
		if got.descriptor >= 0 {
			return nil, fmt.Errorf("%w: a descriptor came with a message that has none", ErrProtocol)
		}
		if err := r.rises(m.Sequence); err != nil {
			return nil, err
		}
		return &Announced{Sequence: m.Sequence, Source: m.Source, Now: true, Way: way}, nil
	}
	return nil, fmt.Errorf("%w: a control message that a client must not send, or not again: %T", ErrProtocol, m)
}

func (r *Receiver) rises(sequence uint64) error {
	if sequence <= r.sequence {
		return fmt.Errorf("%w: its sequence number %d does not rise above %d", ErrUnproven, sequence, r.sequence)
	}
	r.sequence = sequence
	return nil
}

// waysAtOnce is how many ways are taken at once. A client that could not send the message after one sends another, so there may be
// more; but one that sends nothing else must not keep the caller.
const waysAtOnce = 4

// receive returns the next message that is not a way, nil if none waits. The last way before it is kept for it. Where so many come one
// after the other that it is not reached the error is ErrLeftOut.
func (r *Receiver) receive() (any, received, error) {
	in := inboxes.Get().(*inbox)
	defer inboxes.Put(in)
	for range waysAtOnce {
		m, got, err := r.receiveInto(in)
		way, ok := m.(*Way)
		if !ok || err != nil {
			return m, got, err
		}
		if r.way, err = way, r.peer.couldBecomeAnybody(got); err != nil {
			return nil, got, err
		}
	}
	return nil, received{descriptor: -1}, ErrLeftOut
}

// inboxes are shared, because a way is long and most clients never send one.
var inboxes = sync.Pool{New: func() any { return new(inbox) }}

func (r *Receiver) receiveInto(in *inbox) (any, received, error) {
	got, err := in.recv(r.fd, r.peer.uid)
	if err == unix.ECONNRESET {
		// The client closed its end with something of ours unread. What it had sent before is still there.
		got, err = in.recv(r.fd, r.peer.uid)
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
	got.data = nil // the inbox's
	return m, got, err
}

// couldBecomeAnybody returns nil if a message shows that its sender had CAP_SETUID and CAP_SETGID in the first user namespace: it
// claims ids that are nobody's, and the kernel lets nobody else do that. The root of another user namespace arrives as whoever made
// that.
func (p peer) couldBecomeAnybody(got received) error {
	switch {
	case got.descriptor >= 0:
		return fmt.Errorf("%w: a descriptor came with a message that has none", ErrProtocol)
	case got.cred == nil:
		return fmt.Errorf("%w: a way came without credentials", ErrUnproven)
	case got.cred.Pid != p.pid:
		return fmt.Errorf("%w: a way was sent by process %d, the pipe's client is process %d", ErrUnproven, got.cred.Pid, p.pid)
	case got.cred.Uid != claimedID || got.cred.Gid != claimedID:
		return fmt.Errorf("%w: who speaks for others has to claim uid and gid %d, which takes CAP_SETUID and CAP_SETGID; it claims %d and %d",
			ErrUnproven, uint32(claimedID), got.cred.Uid, got.cred.Gid)
	}
	return nil
}

// Descriptor returns the channel's descriptor, for waiting until there is something to receive. It stays the receiver's.
func (r *Receiver) Descriptor() int { return r.fd }

// Tell sends the client what is in force. A client that does not listen is left alone.
func (r *Receiver) Tell(f InForce) { r.send(f.encode()) }

// Refuse tells the client why its connection ends.
func (r *Receiver) Refuse(why Refusal) { r.send(why.encode()) }

func (r *Receiver) send(b []byte) {
	_ = unix.Sendmsg(r.fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// Close closes the server's end. Its queue may hold what a stranger put there; then that is not closed on the caller's time.
func (r *Receiver) Close() {
	discard.Socket(r.fd, r.peer.uid)
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
	case errors.Is(err, ErrNoDescriptors), errors.Is(err, ErrBusy):
		return RefusedBusy
	case errors.Is(err, token.ErrLevel):
		return RefusedLevel
	}
	return RefusedProtocol
}

// prove returns the token that the token socket fd, which stays the caller's, and the claim that came with it prove. With
// believed the token socket may be another process's.
func (p peer) prove(fd int, claim *unix.Ucred, believed bool) (*token.Token, error) {
	if err := unnamedPair(fd); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	t, err := token.OfDescriptor(fd)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	switch {
	case claim == nil:
		return nil, fmt.Errorf("%w: it came without credentials", ErrUnproven)
	case claim.Pid != p.pid:
		return nil, fmt.Errorf("%w: it was sent by process %d, the pipe's client is process %d", ErrUnproven, claim.Pid, p.pid)
	case claim.Uid != t.UID() || claim.Gid != t.GID():
		return nil, fmt.Errorf("%w: the sender claims uid %d and gid %d, the token socket has uid %d and gid %d",
			ErrUnproven, claim.Uid, claim.Gid, t.UID(), t.GID())
	}
	if !believed {
		if err := p.made(fd, t); err != nil {
			return nil, err
		}
	}
	return t.AsProof(), nil
}

// made returns nil if the peer itself made the token socket fd, and is alive.
func (p peer) made(fd int, t *token.Token) error {
	inode, pidfd, err := peerProcess(fd)
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: %w: %w", ErrUnproven, errGone, err)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w: %w", ErrNoDescriptors, err)
	case err != nil:
		return fmt.Errorf("%w: asking which process made the token socket: %w", ErrUnproven, err)
	}
	defer unix.Close(pidfd)
	switch {
	case p.inode == 0 || inode != p.inode || t.Source().PID != int(p.pid):
		return fmt.Errorf("%w: another process than the pipe's client made the token socket", ErrUnproven)
	case !token.Alive(pidfd):
		return fmt.Errorf("%w: %w: process %d", ErrUnproven, errGone, p.pid)
	}
	return nil
}

var errGone = errors.New("the process has gone")

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
