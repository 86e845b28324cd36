package guise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// Dialer opens pipes. The zero value states nothing and trusts every server.
type Dialer struct {
	// QoS is what the client states; nil states nothing.
	QoS *QoS
	// Dir is the directory of names, in the place of those where they are looked for.
	Dir string
	// CheckServer, if not nil, is asked before anything is sent, with the token of whoever listens on the pipe. If it
	// returns an error the server is told that this client is anonymous to it, the connection is closed and Dial fails with the error.
	CheckServer func(*token.Token) error
}

// Dial opens the pipe called name with a quality of service, which may be nil, and waits for a busy server as long as it takes.
// See [Dialer.Dial].
func Dial(name string, qos *QoS) (*Conn, error) {
	return (&Dialer{QoS: qos}).Dial(context.Background(), name)
}

// Dial opens the pipe called name, looked for in /run/guise/pipe and then in $XDG_RUNTIME_DIR/guise/pipe; a name with a slash
// is a path. The calling goroutine's thread is the client: inside a scope that is the context that the scope wears. With dynamic
// tracking a connection that is opened in a scope belongs to it while it lasts.
//
// A server that accepts no more connections for now is waited for until ctx ends; then the error wraps [ErrBusy] and ctx's.
// [ErrNoPipe] and [ErrNobodyListens] say what else may be wrong.
func (d *Dialer) Dial(ctx context.Context, name string) (*Conn, error) {
	c, err := d.dial(ctx, name)
	if err != nil {
		return nil, opError("dial", name, err)
	}
	return c, nil
}

// DialContext is Dial as [net/http.Transport] and others want it. The network is not looked at.
func (d *Dialer) DialContext(ctx context.Context, _, name string) (net.Conn, error) {
	c, err := d.Dial(ctx, name)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (d *Dialer) dial(ctx context.Context, name string) (*Conn, error) {
	a, err := parseAddress(name)
	if err != nil {
		return nil, err
	}
	var qos QoS
	if d.QoS != nil {
		qos = *d.QoS
	}
	if qos.Level > Delegation || qos.Tracking > Dynamic {
		return nil, fmt.Errorf("no such quality of service: %v, %v", qos.Level, qos.Tracking)
	}
	// The kernel freezes the context of the thread that connects, and the preface must tell of the same one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	// What has changed once the connection is made is told afterwards.
	var look announce.Look
	if err := look.Take(); err != nil {
		return nil, fmt.Errorf("looking at this thread's context: %w", err)
	}
	var seen *token.Token
	if s := scopeOf(thread.Current()); s != nil {
		if err := s.lostErr(); err != nil {
			return nil, err
		}
		seen = s.Token()
	}
	// Whatever can fail is done before the connecting. A server that sees a client go away without a word may take it for one that
	// does not speak guise's protocol, and act for it with more than was to be allowed.
	e, err := newClientEnd(qos, &look, seen)
	if err != nil {
		return nil, err
	}
	fd, message, err := d.connect(ctx, a)
	if err != nil {
		e.channel.Drop()
		return nil, err
	}
	if err := d.greet(fd, e); err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), a.text)
	generic, err := net.FileConn(f)
	f.Close()
	if err != nil {
		e.closeChannel()
		return nil, err
	}
	c := newConn(generic.(*net.UnixConn), a.text, message)
	c.client = e
	c.noRights.Store(refusesRights(c.socket))
	if err := e.opened(c, seen); err != nil {
		e.closeChannel()
		c.socket.Close()
		return nil, err
	}
	return c, nil
}

// greet sends the server the preface, if it is one to be trusted and the client is still who it was.
func (d *Dialer) greet(fd int, e *clientEnd) (err error) {
	if e.scope != nil {
		err = e.scope.lostErr()
	}
	if err == nil && d.CheckServer != nil {
		err = d.checkServer(fd)
	}
	if err != nil {
		e.channel.Drop()
		announce.Disown(fd)
		return err
	}
	err = e.channel.Preface(fd)
	if err == nil {
		return nil
	}
	e.closeChannel()
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		err = fmt.Errorf("the server ended the connection at once; perhaps it does not let this client in: %w", err)
	}
	return err
}

func (d *Dialer) checkServer(fd int) error {
	t, err := token.OfDescriptor(fd)
	if err != nil {
		return err
	}
	if err := d.CheckServer(t); err != nil {
		return fmt.Errorf("the server is %s: %w", t, err)
	}
	return nil
}

// connect returns a connected socket, and whether it is one of messages.
func (d *Dialer) connect(ctx context.Context, a address) (fd int, message bool, err error) {
	var paths []string
	switch {
	case a.path != "":
		paths = []string{a.path}
	case d.Dir != "":
		paths = []string{filepath.Join(d.Dir, a.name)}
	default:
		for _, dir := range directories() {
			paths = append(paths, filepath.Join(dir, a.name))
		}
	}
	for _, path := range paths {
		fd, err = connectTo(ctx, path, unix.SOCK_STREAM)
		if err == unix.EPROTOTYPE {
			message = true
			fd, err = connectTo(ctx, path, unix.SOCK_SEQPACKET)
		}
		if err != unix.ENOENT && err != unix.ENOTDIR {
			break
		}
	}
	switch err {
	case nil:
		return fd, message, nil
	case unix.ENOENT, unix.ENOTDIR:
		err = fmt.Errorf("%w (looked for %v)", ErrNoPipe, paths)
	case unix.ECONNREFUSED:
		err = ErrNobodyListens
	}
	return -1, false, err
}

// slice is how long, in microseconds, a connect waits for a busy server before it looks whether its context has ended.
const slice = 50_000

func connectTo(ctx context.Context, path string, kind int) (fd int, err error) {
	if len(path) > maxPath {
		return -1, fmt.Errorf("the socket's path %s is %d bytes long, it can have %d", path, len(path), maxPath)
	}
	if err := ctx.Err(); err != nil {
		return -1, err
	}
	fd, err = unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// Nothing comes along with what the server sends. Kernels before Linux 6.16 don't have that.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
	// The kernel wakes a waiting connect in turn, which trying again and again would not.
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: slice})
	for err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if err == nil {
			return fd, nil // it blocks: net.FileConn has it polled, and os.NewFile not as well
		}
		busy := err == unix.EAGAIN
		if !busy && err != unix.EINTR {
			break
		}
		err = nil
		if ended := ctx.Err(); ended != nil {
			err = ended
			if busy {
				err = fmt.Errorf("%w: %w", ErrBusy, ended)
			}
		}
	}
	unix.Close(fd)
	return -1, err
}
