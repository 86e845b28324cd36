package announce

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/unixsocket"
	"github.com/guise-project/guise/token"
)

// Sender is the client's end of a control channel. One goroutine at a time may send, one wait for an answer, and any may listen, set the
// deadline, and close.
type Sender struct {
	end      *channelEnd
	far      int    // the server's end, until the preface; else -1
	server   uint32 // the uid at the other end of the pipe
	sequence uint64
	wayOut   bool     // a way has been sent, and not yet the message that it is for
	owed     *context // that message, if it could not be sent: nothing else may take its place

	hearing sync.Mutex
	waiting bool // in WaitAnswer; guarded by hearing
}

// Open makes a control channel with hello queued on it and hands it to the server over pipe, a connected Unix socket to which nothing was
// written yet. See [Make] and [Sender.Preface].
func Open(pipe int, before func(*Sender) error, hello Hello) (*Sender, error) {
	s, err := Make(before, hello)
	if err != nil {
		return nil, err
	}
	if err := s.Preface(pipe); err != nil {
		s.end.close()
		return nil, err
	}
	return s, nil
}

// Make makes a control channel with hello queued on it, which is to be handed to the server with [Sender.Preface] or closed. It is for before
// the connecting: a server may take a client that goes away without a word for one that allows what a plain client does. before, if
// not nil, sends what goes before the hello.
func Make(before func(*Sender) error, hello Hello) (*Sender, error) {
	near, far, err := socketpair()
	if err != nil {
		return nil, fmt.Errorf("making the control channel: %w", err)
	}
	end, err := newChannelEnd(near)
	if err != nil {
		unix.Close(far)
		return nil, fmt.Errorf("making the control channel: %w", err)
	}
	s := &Sender{end: end, far: far}
	if before != nil {
		err = before(s)
	}
	if err == nil {
		err = s.send(Wait, hello.encode(), nil)
		s.wayOut = false
	}
	if err != nil {
		s.Drop()
		return nil, fmt.Errorf("making the control channel: %w", err)
	}
	return s, nil
}

// Preface hands the far end to the server over pipe, a connected Unix socket to which nothing was written yet and which stays the caller's.
func (s *Sender) Preface(pipe int) error {
	s.server = pipePeer(pipe).uid
	err := trySend(pipe, []byte{PrefaceByte}, unix.UnixRights(s.far))
	unix.Close(s.far)
	s.far = -1
	if err != nil {
		return fmt.Errorf("sending the preface: %w", err)
	}
	return nil
}

// Disown tells the server at the other end of pipe, to which nothing was written yet, that it gets nothing of this client: level
// Anonymous. It is for connections that are closed again before anything was stated.
func Disown(pipe int) {
	if s, err := Open(pipe, nil, Hello{Level: token.Anonymous, Capabilities: token.Capabilities{}}); err == nil {
		s.end.close()
	}
}

// Drop closes a channel that was not handed over.
func (s *Sender) Drop() {
	if s.far >= 0 {
		unix.Close(s.far)
		s.far = -1
	}
	s.end.close()
}

// ErrNotNow is what a sending that does not wait returns where it would have to.
var ErrNotNow = errors.New("the server has not received what was announced before")

// Sending says whether sending waits.
type Sending bool

// Wait waits while the server has not received what came before, until the deadline; AtOnce returns [ErrNotNow] then.
const (
	Wait   Sending = true
	AtOnce Sending = false
)

// Announce tells the server that the calling thread's context, which look is of, is the client's, or that of one of its scopes.
// The calling goroutine has to be locked to its thread.
func (s *Sender) Announce(how Sending, look *Look, c Context) error {
	own, err := look.Prove()
	if err != nil {
		return err
	}
	defer own.Close()
	return s.Prove(how, own, c)
}

// Own is a token socket of a thread's, for announcing its context on several channels.
type Own struct {
	fd   int
	look *Look
}

// ErrChangedMeanwhile says that a thread's ids have changed between looking at them and proving them: look again.
var ErrChangedMeanwhile = errors.New("the ids have changed meanwhile")

// Prove makes a token socket of the calling thread, whose context l has to be. It is good for the thread, and those that may
// claim its ids.
func (l *Look) Prove() (Own, error) {
	near, far, err := socketpair()
	if err != nil {
		return Own{}, fmt.Errorf("making a token socket: %w", err)
	}
	return l.ProveWith(near, far)
}

// ProveWith is Prove with a socketpair that was made by a thread whose context l has to be. It takes the descriptors over.
func (l *Look) ProveWith(near, far int) (Own, error) {
	unix.Close(near) // so that nobody who gets the other end can queue anything
	o := Own{far, l}
	cred, err := unix.GetsockoptUcred(far, unix.SOL_SOCKET, unix.SO_PEERCRED)
	var groups []uint32
	if err == nil {
		groups, err = token.PeerGroups(far)
	}
	if err == nil && (cred.Uid != l.uid || cred.Gid != l.gid || !slices.Equal(groups, l.groups)) {
		err = ErrChangedMeanwhile
	}
	if err != nil {
		o.Close()
		return Own{}, err
	}
	return o, nil
}

// Close closes the token socket.
func (o Own) Close() { unix.Close(o.fd) }

// Prove is Announce with a token socket that was made before.
func (s *Sender) Prove(how Sending, own Own, c Context) error {
	c.Capabilities = own.look.caps
	return s.context(how, own.fd, own.look.uid, own.look.gid, c)
}

// Pass announces a context with the token socket of the process that it came from. The calling thread has to be able to claim its
// ids, and to have sent the way.
func (s *Sender) Pass(how Sending, p *Proof, c Context) error {
	return s.context(how, p.fd, p.token.UID(), p.token.GID(), c)
}

// context is a message with a token socket.
type context struct {
	message  []byte
	fd       int
	uid, gid uint32
}

func (s *Sender) context(how Sending, fd int, uid, gid uint32, c Context) error {
	if err := s.Settle(how); err != nil {
		return err
	}
	s.sequence++
	c.Sequence = s.sequence
	m := context{c.encode(), fd, uid, gid}
	err := s.sendContext(how, &m)
	if err == nil || !s.wayOut {
		return err
	}
	// The descriptor is the caller's.
	if m.fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		s.end.close() // the server would take the way for that of the next message
		return fmt.Errorf("keeping a token socket: %w", err)
	}
	s.owed = &m
	return ErrNotNow
}

func (s *Sender) sendContext(how Sending, m *context) error {
	err := s.send(how, m.message, append(credentials(m.uid, m.gid), unix.UnixRights(m.fd)...))
	switch {
	case err == nil:
		s.wayOut = false
	case errors.Is(err, unix.EPERM):
		return ErrChangedMeanwhile // this thread could claim these ids a moment ago
	}
	return err
}

// Settle sends what could not be sent after its way.
func (s *Sender) Settle(how Sending) error {
	if s.owed == nil {
		return nil
	}
	if err := s.sendContext(how, s.owed); err != nil {
		return err
	}
	discard.Socket(s.owed.fd, s.server) // its maker may have queued something on it
	s.owed = nil
	return nil
}

// Way says which way the context of the next message came. It takes CAP_SETUID and CAP_SETGID; without them it fails with EPERM.
func (s *Sender) Way(how Sending, w *Way) error {
	b, err := w.encode()
	if err == nil {
		err = s.Settle(how)
	}
	if err == nil {
		err = s.send(how, b, credentials(claimedID, claimedID))
	}
	if err == nil {
		s.wayOut = true
	}
	return err
}

// Lost tells the server that the context of a source is lost.
func (s *Sender) Lost(how Sending, source uint64) error {
	if err := s.Settle(how); err != nil {
		return err
	}
	s.sequence++
	return s.send(how, Lost{Sequence: s.sequence, Source: source}.encode(), nil)
}

// credentials is the control message that claims a uid and a gid.
func credentials(uid, gid uint32) []byte {
	return unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: uid, Gid: gid})
}

// Answer calls took with what the server has said, an InForce or a Refusal, and reports whether there was something. At the end of the
// channel it returns io.EOF. Whoever gets that knows that took has been called for all that came before, whoever received it.
func (s *Sender) Answer(took func(any)) (ok bool, err error) {
	waiting := false
	if controlErr := s.end.control(func(fd int) { ok, waiting, err = s.hear(fd, took) }); controlErr != nil {
		err = controlErr
	}
	if ok && waiting {
		s.end.wake() // there is nothing left to read that would
	}
	return ok, err
}

// WaitAnswer is Answer, but waits until the deadline for enough to have been said, whoever takes it in.
func (s *Sender) WaitAnswer(took func(any), enough func() bool) error {
	s.setWaiting(true)
	defer s.setWaiting(false)
	var err error
	awaitErr := s.end.await(true, func(fd int) bool {
		var ok bool
		ok, _, err = s.hear(fd, took)
		return ok || err != nil || enough()
	})
	if awaitErr != nil {
		err = awaitErr
	}
	return err
}

func (s *Sender) hear(fd int, took func(any)) (ok, waiting bool, err error) {
	s.hearing.Lock()
	defer s.hearing.Unlock()
	m, err := receiveAnswer(fd, s.server)
	if m == nil || err != nil {
		return false, s.waiting, err
	}
	took(m)
	return true, s.waiting, nil
}

func (s *Sender) setWaiting(waiting bool) {
	s.hearing.Lock()
	defer s.hearing.Unlock()
	s.waiting = waiting
}

// Server returns the uid of whoever listens on the pipe that the preface went over.
func (s *Sender) Server() uint32 { return s.server }

// SetDeadline bounds how long sending and WaitAnswer wait. The zero time is no bound.
func (s *Sender) SetDeadline(t time.Time) error { return s.end.setDeadline(t) }

// Close closes the client's end. What the server has put on it is not closed on the caller's time. What is owed stays until
// [Sender.Forget].
func (s *Sender) Close() error {
	var closing discard.Closing
	pending := false
	err := s.end.control(func(fd int) {
		// Nobody else has a copy of this end.
		if pending = unix.Shutdown(fd, unix.SHUT_RDWR) == nil && unixsocket.Pending(fd); pending {
			closing = discard.Begin(fd, s.server)
		}
	})
	if err != nil || !pending {
		return s.end.close()
	}
	closing.End(s.server, func() { s.end.close() })
	return nil
}

// Forget lets go of what is owed, after Close.
func (s *Sender) Forget() {
	if s.owed != nil {
		discard.Socket(s.owed.fd, s.server)
		s.owed = nil
	}
}

func socketpair() (near, far int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	return p[0], p[1], err
}

func (s *Sender) send(how Sending, message, control []byte) error {
	var sendErr error
	try := func(fd int) bool {
		sendErr = trySend(fd, message, control)
		return sendErr != unix.EAGAIN
	}
	if how == Wait {
		if err := s.end.await(false, try); err != nil {
			return err
		}
		return sendErr
	}
	if err := s.end.control(func(fd int) { try(fd) }); err != nil {
		return err
	}
	// The latter: too many descriptors of this user are under way.
	if sendErr == unix.EAGAIN || sendErr == unix.ETOOMANYREFS {
		return ErrNotNow
	}
	return sendErr
}

func trySend(fd int, message, control []byte) error {
	for {
		err := unix.Sendmsg(fd, message, control, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}
