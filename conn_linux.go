package guise

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/unixsocket"
	"github.com/guise-project/guise/token"
)

// Conn is one end of a pipe: of a server that accepted it or of a client that dialled it. It is a [net.Conn] and a
// [syscall.Conn]. Its methods may be called by many goroutines at once.
//
// In message mode each Write is one message and each Read returns one, or as much as fits and [ErrMoreData]; a message may be
// empty. The descriptor that SyscallConn gives reads past what the package knows; it is for asking, not for reading.
type Conn struct {
	socket  *net.UnixConn
	raw     syscall.RawConn // the socket's
	server  *serverEnd      // nil on the client's end
	client  *clientEnd      // nil on the server's end, and if carried is set
	carried *carriedEnd
	pipe    string
	message bool
	closed  atomic.Bool
	shared  atomic.Bool // others may have a copy of the socket
	// noRights says that no descriptors can come along with what is still to be read from a stream.
	noRights atomic.Bool
	// readDeadline is the one that the caller has set, nil for none.
	readDeadline atomic.Pointer[time.Time]
}

// newConn returns one end of a pipe without what makes it a server's or a client's.
func newConn(socket *net.UnixConn, pipe string, message bool) *Conn {
	c := &Conn{socket: socket, pipe: pipe, message: message}
	c.raw, _ = socket.SyscallConn() // fails for a nil one alone
	return c
}

// refusesRights reports whether a socket lets nobody send it descriptors.
func refusesRights(socket *net.UnixConn) bool {
	accepted, err := 1, error(unix.EBADF)
	control(socket, func(fd int) { accepted, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS) })
	return err == nil && accepted == 0
}

// readStream reads bytes that owner, a uid, sends.
func (c *Conn) readStream(p []byte, owner uint32) (int, error) {
	if c.noRights.Load() && !c.shared.Load() {
		return c.socket.Read(p)
	}
	return unixsocket.Read(c.raw, p, owner)
}

// Read reads from the pipe. On a server's end, what it returns was written under the context that is current once it has
// returned. A stream's reads therefore stop where the client's context changed.
func (c *Conn) Read(p []byte) (int, error) {
	if c.server != nil {
		return c.server.read(c, p)
	}
	if c.carried != nil {
		return c.carried.read(c, p)
	}
	return c.client.read(c, p)
}

// Write writes to the pipe. On a client's end with dynamic tracking it tells the server first if the calling thread's context
// has changed; see [ErrWrongScope] for what it refuses.
func (c *Conn) Write(p []byte) (int, error) {
	if c.server != nil {
		n, err := c.writeSocket(p)
		if err != nil && c.server.lostErr() != nil {
			err = c.server.lostErr()
		}
		return n, c.fail("write", err)
	}
	if c.carried != nil {
		return c.carried.write(c, p)
	}
	return c.client.write(c, p)
}

// writeSocket writes p, in message mode as one message.
func (c *Conn) writeSocket(p []byte) (int, error) {
	if c.server != nil && c.server.network != nil && c.server.network.shut.Load() {
		return 0, unix.EPIPE // as after a shutdown(2), which waits
	}
	if c.message && c.server != nil && c.server.network != nil {
		return c.server.network.frames.write(c.socket, p)
	}
	if c.message && len(p) == 0 {
		return 0, c.sendEmpty()
	}
	return c.socket.Write(p)
}

// Close closes the connection. It never waits for what the other end may have put on it. A client on another machine still gets what
// was written before, if it reads it within 30 seconds and this process lives that long; see [Conn.Flush]. Of one machine's clients 128 can
// be waited for at once.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return opError("close", c.pipe, net.ErrClosed)
	}
	switch {
	case c.server != nil:
		c.server.close()
	case c.client != nil:
		c.client.lastLook()
		control(c.socket, func(fd int) { unix.Shutdown(fd, unix.SHUT_RDWR) })
		c.client.close()
	}
	if c.server != nil && c.server.network != nil {
		c.socket.SetDeadline(time.Unix(1, 0)) // whoever still waits on it need not
		c.linger(func() { closePipe(c.socket, c.owner(), true) })
		return nil
	}
	closePipe(c.socket, c.owner(), c.shared.Load())
	return nil
}

// owner returns the uid that may send descriptors to this end.
func (c *Conn) owner() uint32 {
	switch {
	case c.server != nil:
		return c.server.peer.UID()
	case c.client != nil:
		return c.client.channel.Server()
	}
	return uint32(unix.Geteuid()) // this process carries the data itself
}

// closePipe closes a socket, to which owner, a uid, may have sent descriptors. shared says that somebody else may have a copy of it: then looking
// at its queue shows nothing.
func closePipe(socket *net.UnixConn, owner uint32, shared bool) {
	var closing discard.Closing
	pending := false
	control(socket, func(fd int) {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		if pending = shared || unixsocket.Pending(fd); pending {
			closing = discard.Begin(fd, owner)
		}
	})
	switch {
	case !pending:
		socket.Close()
	case !closing.Empty():
		closing.End(owner, func() { socket.Close() })
	case shared:
		// Whoever has a copy can have receiving wait.
		discard.Later(owner, func() { drainAndClose(socket) })
	default:
		drainAndClose(socket)
	}
}

// drainAndClose closes a socket that has no descriptors in its queue. Closing it with something unread would take what was sent last away from
// the other end.
func drainAndClose(socket *net.UnixConn) {
	control(socket, unixsocket.Drain)
	socket.Close()
}

// CloseWrite shuts down the writing side: the other end reads to the end and can still answer.
//
// Between machines a client can't do that, as SMB has nothing for it: the server is not told.
func (c *Conn) CloseWrite() error {
	if c.server != nil && c.server.network != nil {
		if c.closed.Load() {
			return c.fail("close", net.ErrClosed)
		}
		if !c.server.network.shut.Swap(true) {
			c.linger(func() { _ = c.socket.CloseWrite() })
		}
		return nil
	}
	return c.fail("close", c.socket.CloseWrite())
}

// CloseRead shuts down the reading side.
func (c *Conn) CloseRead() error {
	return c.fail("close", c.socket.CloseRead())
}

// LocalAddr returns this end's address.
func (c *Conn) LocalAddr() net.Addr {
	if c.carried != nil {
		return c.carried.Local
	}
	if c.server != nil && c.server.network == nil {
		return c.server.listener.address
	}
	return c.socket.LocalAddr()
}

// RemoteAddr returns the other end's address: between machines a [*net.TCPAddr]. A client's on this machine is usually empty.
func (c *Conn) RemoteAddr() net.Addr {
	if c.carried != nil {
		return c.carried.Remote
	}
	if c.server != nil && c.server.network != nil {
		return c.server.network.address
	}
	return c.socket.RemoteAddr()
}

// SetDeadline sets the deadlines for reading and writing; see [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error {
	if c.closed.Load() {
		return c.fail("set deadline", net.ErrClosed)
	}
	if c.client != nil {
		c.client.setWriteDeadline(t)
	}
	c.readDeadline.Store(&t)
	return c.fail("set deadline", c.socket.SetDeadline(t))
}

// SetReadDeadline sets the deadline for reading; see [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error {
	if c.closed.Load() {
		return c.fail("set deadline", net.ErrClosed)
	}
	c.readDeadline.Store(&t)
	return c.fail("set deadline", c.socket.SetReadDeadline(t))
}

func (c *Conn) restoreReadDeadline() {
	var t time.Time
	if set := c.readDeadline.Load(); set != nil {
		t = *set
	}
	c.socket.SetReadDeadline(t)
}

// SetWriteDeadline sets the deadline for writing; see [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.closed.Load() {
		return c.fail("set deadline", net.ErrClosed)
	}
	if c.client != nil {
		c.client.setWriteDeadline(t)
	}
	return c.fail("set deadline", c.socket.SetWriteDeadline(t))
}

// Peer returns who opened the pipe, on a client's end who listens on it: the kernel's token, as [ListenConfig.Allow] and
// [Dialer.CheckServer] see it. A client's can be worn no more than the client has allowed, and not at all before it has said
// something; see [Conn.RunAsClient] for acting as the client. Like Read, it takes in what the client has said first, and a hostile client can
// have that wait: not for the goroutine that accepts, whose place for knowing clients is [ListenConfig.Allow].
func (c *Conn) Peer() (*token.Token, error) {
	if c.carried != nil {
		return nil, opError("identify", c.pipe, errors.New("the server is on another machine, which tells no more of it than that it is the one that was asked for"))
	}
	if c.server != nil {
		return c.server.opened(c), nil
	}
	return token.Of(c.socket)
}

// SyscallConn returns the pipe's socket. That of a client on another machine is Samba's.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	c.shared.Store(true)
	return c.socket.SyscallConn()
}

// Name returns the pipe's name or path.
func (c *Conn) Name() string { return c.pipe }

// Message reports whether the pipe is one of messages.
func (c *Conn) Message() bool { return c.message }

// QoS returns the quality of service in force. On a server's end fields are unstated until the client has said something (see
// [Conn.WaitClient]); on a client's end that stated no tracking, tracking is unstated until the server has answered.
func (c *Conn) QoS() QoS {
	if c.server != nil {
		return c.server.qosInForce(c)
	}
	if c.carried != nil {
		return c.carried.QoS
	}
	return c.client.qosInForce()
}

// fail wraps an error of an operation on the connection.
func (c *Conn) fail(op string, err error) error {
	if err != nil && c.closed.Load() {
		err = net.ErrClosed
	}
	return opError(op, c.pipe, err)
}

// control calls f with a socket's descriptor, and doesn't if the socket is closed.
func control(c syscall.Conn, f func(fd int)) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

var (
	_ net.Conn     = (*Conn)(nil)
	_ syscall.Conn = (*Conn)(nil)
	_ io.Reader    = (*Conn)(nil)
	_ net.Listener = (*Listener)(nil)
)
