package guise

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Carriage is what carries the data of a pipe to a server that this machine's kernel can't reach: another package's. See
// [Carried].
type Carriage struct {
	// Socket is one end of a socketpair(2), of sequenced packets for a pipe of messages and else a stream. It is the connection's to
	// close; whoever carries has the other end, and learns there what is written and that the connection was closed.
	Socket *net.UnixConn
	// QoS is in force.
	QoS QoS
	// Message says that the pipe is one of messages, none empty and none longer than LongestMessage bytes.
	Message        bool
	LongestMessage int
	// Local and Remote are the addresses that the connection returns.
	Local, Remote net.Addr
	// Why returns why the data ended, nil if the server ended it. It is asked when reading comes to the end, and when writing fails.
	Why func() error
}

// Carried returns a client's end of the pipe called name whose data goes by c. It is for packages that open pipes in other ways than
// [Dial], such as smb, and has to be told the truth about the quality of service.
func Carried(name string, c Carriage) (*Conn, error) {
	conn := newConn(c.Socket, name, c.Message)
	conn.carried = &carriedEnd{Carriage: c}
	if c.Message {
		conn.carried.messages = &messageReader{owner: conn.owner()}
		err := error(unix.EBADF)
		control(c.Socket, func(fd int) { err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		if err != nil {
			return nil, opError("dial", name, fmt.Errorf("turning SO_PASSCRED on: %w", err))
		}
	}
	return conn, nil
}

// carriedEnd is a client's end whose data another package carries.
type carriedEnd struct {
	Carriage
	readMu   sync.Mutex // in message mode
	messages *messageReader
}

func (e *carriedEnd) read(c *Conn, p []byte) (n int, err error) {
	n, err = c.readAnswer(&e.readMu, e.messages, p, c.owner())
	return n, c.fail("read", e.explain(err))
}

func (e *carriedEnd) write(c *Conn, p []byte) (int, error) {
	if c.message {
		if err := fitsNetwork(len(p), e.LongestMessage); err != nil {
			return 0, c.fail("write", err)
		}
	}
	n, err := c.socket.Write(p)
	return n, c.fail("write", e.explain(err))
}

// fitsNetwork returns an error for a message of n bytes that can't go over the network.
func fitsNetwork(n, longest int) error {
	switch {
	case n == 0:
		return errEmptyMessage
	case n > longest:
		return fmt.Errorf("%w: over the network it can have %d bytes, this one has %d", ErrMessageTooLong, longest, n)
	}
	return nil
}

var errEmptyMessage = errors.New("an empty message can't go over the network")

// explain returns why the data ended where err says that it has.
func (e *carriedEnd) explain(err error) error {
	if err == nil || err != io.EOF && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	if why := e.Why(); why != nil {
		return why
	}
	return err
}
