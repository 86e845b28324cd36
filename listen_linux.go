package guise

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/quota"
	"github.com/guise-project/guise/internal/socketfile"
	"github.com/guise-project/guise/token"
)

// ListenConfig says how to listen. The zero value, and a nil *ListenConfig, are the documented defaults.
type ListenConfig struct {
	// Dir is the directory of the socket, in the place of the one that is usual for names. It is not for paths.
	Dir string
	// Mode is the socket's permission bits: who may connect needs the write bit. 0 means 0666, everybody.
	Mode fs.FileMode
	// Group is the socket's group, by name or number; "" leaves it.
	Group string
	// Allow, if not nil, is asked once for each client that connects, with the kernel's token whatever the client's
	// level is. If it returns an error the client is not let in. It runs on Accept's time, and for clients of other machines or
	// with more than 1,000 groups on that of other goroutines, one call at a time.
	Allow func(*token.Token) error
	// Message makes a pipe of messages (SOCK_SEQPACKET) instead of bytes (SOCK_STREAM).
	Message bool
	// Tracking is for clients that state none; TrackingUnstated means Static. A client that does not speak guise's
	// protocol can't announce changes and is static all the same.
	Tracking Tracking
	// Level is the least that clients have to allow; those that state less are turned away, and told so. LevelUnstated
	// lets all in.
	Level Level
	// MaxPerUser is how many connections one user of this machine may have at once; further ones are turned away, and told so. 0 means as many
	// as leave room for others: as long as four times as many of the process's descriptors stay free. Root's clients are not bound by that. The
	// uids that /etc/subuid gives to a user are one user together. Connections count until they are closed.
	MaxPerUser int
	// AllowForeignRoot lets scopes wear uid 0 of another mount or user namespace than this process's: a container's root,
	// or clients of a service that has a mount namespace of its own. With Network it lets them wear other machines' root, too, with this
	// process's capabilities.
	AllowForeignRoot bool
	// KeepPrograms leaves programs that were started with [Scope.Command] alone when their client's context changes.
	KeepPrograms bool
	// Nobody is the uid and gid that a scope has whose client's context is lost: of no account. 0 means 4294967293.
	Nobody uint32
	// Watch lets root and the user of this process watch the connections, as [Watch] does: on a second socket, the pipe's path
	// with ~watch at its end, of mode 0600. A listener on a socket that somebody else made has none, and the log says so.
	// Connections have to be closed then: what is watched is not collected.
	Watch bool
	// Network, if not nil, lets clients of other machines in, by way of Samba.
	Network *Network
	// Logger hears of clients that were turned away or broke the protocol; nil means nobody does. It must not use the connections
	// that it hears of.
	Logger *slog.Logger
}

// Listener accepts the clients of a pipe. It is a [net.Listener]. Its methods may be called by many goroutines at once.
type Listener struct {
	sockets *net.UnixListener
	config  ListenConfig
	pipe    string
	address *net.UnixAddr

	// adopted listeners were made by somebody else, with options that clients' sockets inherit.
	adopted bool

	// The socket's file, if this listener made it.
	path      string
	directory *socketfile.Directory
	file      *socketfile.File

	// What scopes follow their clients with; see prepareFollowing.
	scopesFollow bool
	nobody       *token.Token

	observers *observers // nil unless ListenConfig.Watch

	published *published // nil unless ListenConfig.Network

	lastToken atomic.Pointer[token.Token]
	clientLog clientLog
	perUser   quota.Shares[quota.User] // connections, if that has a bound
	admitting admissions
	refusing  quota.Shares[quota.User] // clients that are being told that they are not let in
	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error
}

// Listen makes the pipe called name and listens on it. A name with a slash is the socket's own path.
//
// Names live in /run/guise/pipe for root and in $XDG_RUNTIME_DIR/guise/pipe for everybody else; GUISE_DIR replaces both. Nobody
// else may be able to write to the directory. A socket that a dead server left behind is replaced; if a live server has the
// name the error wraps [ErrPipeTaken].
func Listen(name string, config *ListenConfig) (*Listener, error) {
	l, err := listen(name, config)
	if err != nil {
		return nil, opError("listen", name, err)
	}
	return l, nil
}

func listen(name string, config *ListenConfig) (*Listener, error) {
	l := newListener(config)
	a, err := parseAddress(name)
	if err != nil {
		return nil, err
	}
	l.pipe = a.text
	path, missing, err := l.config.place(a)
	if err != nil {
		return nil, err
	}
	directory, err := socketfile.Make(filepath.Dir(path), missing)
	if err != nil {
		return nil, err
	}
	fd, file, err := bindSocket(directory, filepath.Base(path), &l.config)
	if err != nil {
		directory.Close()
		return nil, err
	}
	if err := l.take(fd); err != nil {
		file.Remove()
		directory.Close()
		return nil, err
	}
	l.path, l.directory, l.file = path, directory, file
	l.address = &net.UnixAddr{Name: path, Net: l.address.Net} // the kernel has the path without the links on it
	if err := l.publish(); err != nil {
		l.Close()
		return nil, err
	}
	l.letWatch()
	l.receive()
	return l, nil
}

// place returns the path of a's socket, and what of its directory is guise's to make.
func (c *ListenConfig) place(a address) (path string, missing socketfile.Missing, err error) {
	path = a.path
	if path == "" {
		dir := c.Dir
		if dir == "" {
			missing = namesMissing
			if dir, err = Directory(); err != nil {
				return "", missing, err
			}
		}
		path = filepath.Join(dir, a.name)
	} else if c.Dir != "" {
		return "", missing, errors.New("a path has its directory in it already; ListenConfig.Dir is for names")
	}
	path, err = socketPath(path)
	return path, missing, err
}

// socketPath returns the absolute path of a socket, which has to be one that clients can connect to.
func socketPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err == nil && len(path) > maxPath {
		err = fmt.Errorf("the socket's path %s is %d bytes long, it can have %d", path, len(path), maxPath)
	}
	return path, err
}

// ListenOn makes a listener of one that exists, whose clients come over Unix stream or sequenced-packet sockets. The
// listener takes l over: close the result instead. The fields of config that say how a socket is made have no meaning here.
func ListenOn(l net.Listener, config *ListenConfig) (*Listener, error) {
	source, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, opError("listen", "", fmt.Errorf("a %T has no descriptor to listen on", l))
	}
	f, err := source.File()
	if err != nil {
		return nil, opError("listen", "", err)
	}
	defer f.Close()
	result, err := ListenFile(f, config)
	if err != nil {
		return nil, err
	}
	// The socket's file, if there is one, has to stay.
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	l.Close()
	return result, nil
}

// ListenFile makes a listener of a listening Unix socket's descriptor, such as one from systemd, as net.FileListener does:
// it works on a copy, f stays the caller's. It calls listen(2) again, so that clients who ask the kernel for the server's
// context see this process's and not that of whoever made the socket.
func ListenFile(f *os.File, config *ListenConfig) (*Listener, error) {
	l := newListener(config)
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, opError("listen", f.Name(), err)
	}
	if err := l.adopt(fd); err != nil {
		return nil, opError("listen", f.Name(), err)
	}
	return l, nil
}

func newListener(config *ListenConfig) *Listener {
	l := &Listener{closing: make(chan struct{})}
	if config != nil {
		l.config = *config
	}
	l.clientLog.rate = quota.Rate{AtOnce: linesAtOnce, PerSecond: linesPerSecond}
	l.clientLog.telling = quota.Shares[quota.User]{Most: mostTelling, Each: mostTellingOne}
	l.perUser = quota.Shares[quota.User]{Most: math.MaxInt, Each: l.config.MaxPerUser}
	l.refusing = quota.Shares[quota.User]{Most: mostTelling, Each: mostTellingOne}
	if l.config.Logger == nil {
		l.config.Logger = slog.New(slog.DiscardHandler)
	}
	return l
}

// adopt takes over fd, which somebody else made.
func (l *Listener) adopt(fd int) error {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err == nil && family != unix.AF_UNIX {
		err = fmt.Errorf("it is a socket of family %d, not a Unix one", family)
	}
	kind := 0
	if err == nil {
		kind, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	}
	if err == nil && kind != unix.SOCK_STREAM && kind != unix.SOCK_SEQPACKET {
		err = errors.New("it is neither a stream nor a sequenced-packet socket")
	}
	if err == nil {
		if err = unix.Listen(fd, backlog); err != nil {
			err = fmt.Errorf("listen(2): %w", err)
		}
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	l.config.Message = kind == unix.SOCK_SEQPACKET
	l.adopted = true
	withoutMarks(fd)
	if err := l.take(fd); err != nil {
		return err
	}
	l.pipe = l.address.Name
	if err := l.publish(); err != nil {
		l.sockets.Close()
		return err
	}
	l.letWatch()
	l.receive()
	return nil
}

// withoutMarks turns off what would come with a client's every message, and make plain data look like a preface.
func withoutMarks(fd int) {
	for _, option := range []int{unix.SO_PASSCRED, unix.SO_PASSSEC, unix.SO_PASSPIDFD} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 0) // an option that the kernel does not have is not on
	}
}

// take takes over fd, a listening Unix socket.
func (l *Listener) take(fd int) error {
	f := os.NewFile(uintptr(fd), l.pipe)
	defer f.Close()
	sockets, err := net.FileListener(f)
	if err != nil {
		return err
	}
	l.sockets = sockets.(*net.UnixListener)
	l.sockets.SetUnlinkOnClose(false)
	l.address = l.sockets.Addr().(*net.UnixAddr)
	discard.Prepare()
	if err := l.prepareFollowing(); err != nil {
		l.sockets.Close()
		return err
	}
	return nil
}

// backlog is how many connections may wait to be accepted; the kernel cuts it down to net.core.somaxconn.
const backlog = 4096

// bindSocket makes a listening socket called name in a directory. The error wraps [ErrPipeTaken] if a live server has it.
func bindSocket(directory *socketfile.Directory, name string, config *ListenConfig) (fd int, file *socketfile.File, err error) {
	options := socketfile.Options{Type: unix.SOCK_STREAM, Mode: config.Mode, GID: -1, Backlog: backlog}
	if config.Message {
		options.Type = unix.SOCK_SEQPACKET
	}
	if options.Mode == 0 {
		options.Mode = 0o666
	}
	if config.Group != "" {
		if options.GID, err = groupID(config.Group); err != nil {
			return -1, nil, err
		}
	}
	fd, file, err = directory.Listen(name, options)
	if errors.Is(err, socketfile.ErrTaken) {
		err = ErrPipeTaken
	}
	return fd, file, err
}

func groupID(group string) (int, error) {
	g, err := user.LookupGroup(group)
	if err != nil {
		if _, numeric := strconv.ParseUint(group, 10, 32); numeric != nil {
			return 0, err
		}
		return strconv.Atoi(group)
	}
	return strconv.Atoi(g.Gid)
}

// Accept waits for the next client; see [Listener.AcceptPipe].
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptPipe()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptPipe waits for the next client that is let in, and for nothing that the client does after connecting. Clients that are
// not let in, or have gone, are logged and passed over. Out of descriptors or memory, it tries again until there are some: many
// clients must not end a server.
func (l *Listener) AcceptPipe() (*Conn, error) {
	if l.published != nil {
		return l.acceptArrived()
	}
	return l.acceptLocal()
}

// acceptLocal is AcceptPipe for clients of this machine.
func (l *Listener) acceptLocal() (*Conn, error) {
	for pause := firstPause; ; {
		if c := l.admitting.take(); c != nil {
			return c, nil
		}
		socket, err := l.sockets.AcceptUnix()
		if errors.Is(err, os.ErrDeadlineExceeded) { // one has been admitted meanwhile
			_ = l.sockets.SetDeadline(time.Time{})
			continue
		}
		if exhausted(err) {
			l.log(slog.LevelWarn, uint32(unix.Geteuid()), "no client can be accepted for now", "error", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-l.closing:
			}
			pause = min(2*pause, lastPause)
			continue
		}
		if err != nil {
			select {
			case <-l.closing: // whatever it says
				err = net.ErrClosed
			default:
			}
			return nil, opError("accept", l.pipe, err)
		}
		pause = firstPause
		if c, err := l.admit(socket); err == nil && c != nil {
			return c, nil
		}
	}
}

// The pauses between attempts to accept without descriptors or memory double from the first to the last.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

func exhausted(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// refuse ends the connection of a client that is not let in, of t, which is nil if that is not known. It waits for nothing: who it
// is, and why it is refused, others are told. Of more such clients of one user at once than a few nobody is.
func (l *Listener) refuse(socket *net.UnixConn, t *token.Token, why error) {
	uid := ^uint32(0)
	if t != nil {
		uid = t.UID()
	}
	user := quota.Of(uid)
	if !l.refusing.Take(user) {
		closePipe(socket, uid, false)
		l.log(slog.LevelWarn, uid, "client not let in", "client", t, "error", why)
		return
	}
	go func() {
		defer l.refusing.Give(user)
		refusal := announce.RefusedAccess
		if errors.Is(why, announce.ErrBusy) || errors.Is(why, discard.ErrHeld) {
			refusal = announce.RefusedBusy
		}
		control(socket, func(fd int) { announce.RefusePreface(fd, refusal) })
		closePipe(socket, uid, false)
		l.log(slog.LevelWarn, uid, "client not let in", "client", t, "error", why)
	}()
}

// allows asks whether a client may come in.
func (l *Listener) allows(t *token.Token) error {
	if l.config.Allow == nil {
		return nil
	}
	if l.published != nil {
		l.published.allow.Lock()
		defer l.published.allow.Unlock()
	}
	return l.config.Allow(t)
}

// shared returns a token that an earlier client had if t is the same, so that many connections of one client are cheap.
func (l *Listener) shared(t *token.Token) *token.Token {
	if last := l.lastToken.Load(); last != nil && last.Source() == t.Source() && last.Equal(t) {
		return last
	}
	l.lastToken.Store(t)
	return t
}

// Addr returns the socket's address.
func (l *Listener) Addr() net.Addr { return l.address }

// Name returns the pipe's name as it was given to Listen, folded; the path where it was one.
func (l *Listener) Name() string { return l.pipe }

// SyscallConn returns the listening socket, for options that this package does not know.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.sockets.SyscallConn() }

// Close stops listening and removes the socket's file if Listen made it and it is still there. Connections that were accepted
// stay.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() {
		close(l.closing)
		l.observers.close()
		if l.published != nil {
			l.published.close()
		}
		l.file.Remove()
		l.directory.Close()
		closing := l.turnAwayWaiting()
		for c := l.admitting.take(); c != nil; c = l.admitting.take() {
			c.Close()
		}
		l.closeErr = opError("close", l.pipe, closing())
	})
	return l.closeErr
}

// turnAwayWaiting takes care of the clients that nobody has accepted: they go with the socket, and may have put on theirs what blocks when
// it is closed. What it returns closes the socket.
func (l *Listener) turnAwayWaiting() (closing func() error) {
	var rest discard.Closing
	handOn := false
	control(l.sockets, func(fd int) {
		if !l.adopted { // others may go on with one that is
			_ = unix.Shutdown(fd, unix.SHUT_RD) // nobody can connect any more
			for {
				client, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
				if err == nil {
					discard.Socket(client, ^uint32(0))
				} else if err == unix.EAGAIN || err == unix.EINVAL { // that was the last
					return
				} else if err != unix.EINTR && err != unix.ECONNABORTED {
					break // out of descriptors
				}
			}
		}
		rest, handOn = discard.Entrust(fd, ^uint32(0)), true
	})
	return func() error {
		if !handOn {
			return l.sockets.Close()
		}
		closed := make(chan error, 1)
		rest.End(^uint32(0), func() { closed <- l.sockets.Close() })
		select {
		case err := <-closed:
			return err
		default: // others close it
			return nil
		}
	}
}
