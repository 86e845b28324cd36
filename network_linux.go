package guise

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/npa"
	"github.com/guise-project/guise/internal/quota"
	"github.com/guise-project/guise/internal/socketfile"
	"github.com/guise-project/guise/token"
)

// published is a pipe's socket for smbd.
type published struct {
	sockets   *net.UnixListener
	directory *socketfile.Directory
	file      *socketfile.File
	arrived   chan arrival
	waiting   quota.Shares[netip.Addr] // clients that have arrived, and nobody has accepted yet
	shaking   atomic.Int32
	patience  time.Duration // with smbd
	allow     sync.Mutex    // ListenConfig.Allow is asked by one at a time
}

// arrival is a client that waits to be accepted, or why none can be.
type arrival struct {
	conn *Conn
	err  error
}

// publish makes the socket for smbd, if the listener has one.
func (l *Listener) publish() error {
	if l.config.Network == nil {
		return nil
	}
	directory, path, err := l.config.Network.place(l.pipe)
	if err != nil {
		return fmt.Errorf("publishing the pipe to Samba: %w", err)
	}
	fd, file, err := bindSocket(directory, filepath.Base(path), &ListenConfig{Mode: 0o600})
	if err != nil {
		directory.Close()
		return fmt.Errorf("publishing the pipe to Samba at %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	sockets, err := net.FileListener(f)
	f.Close()
	if err != nil {
		file.Remove()
		directory.Close()
		return fmt.Errorf("publishing the pipe to Samba at %s: %w", path, err)
	}
	l.published = &published{
		sockets: sockets.(*net.UnixListener), directory: directory, file: file,
		arrived: make(chan arrival), patience: handshakeTime, waiting: quota.Shares[netip.Addr]{Most: mostArrived, Each: mostWaitingOne},
	}
	l.published.sockets.SetUnlinkOnClose(false)
	return nil
}

// receive begins to let clients in.
func (l *Listener) receive() {
	if l.published != nil {
		go l.acceptHere()
		go l.acceptNetwork()
	}
}

// place returns the path of the socket for smbd, and its directory, which is made if it isn't there.
func (n *Network) place(pipe string) (*socketfile.Directory, string, error) {
	name := n.Name
	if name == "" {
		name = pipe
	}
	a, err := parseAddress(name)
	if err != nil {
		return nil, "", err
	}
	if a.path != "" {
		return nil, "", fmt.Errorf("%w: the pipe is a path, %s; Network.Name has to say what it is called on the network", ErrBadName, a.path)
	}
	if n.Path != "" {
		if n.Dir != "" {
			return nil, "", errors.New("Network.Path has its directory in it already, and Network.Dir is another")
		}
		path, err := socketPath(n.Path)
		if err != nil {
			return nil, "", err
		}
		directory, err := socketfile.Open(filepath.Dir(path))
		return directory, path, err
	}
	dir := n.Dir
	if dir == "" {
		dir = SambaDirectory
	}
	path, err := socketPath(filepath.Join(dir, a.name))
	if err != nil {
		return nil, "", err
	}
	directory, err := makeSambaDirectory(filepath.Dir(path))
	return directory, path, err
}

// sambaMode is what smbd insists on: it does not start with another mode of the directory.
const sambaMode = 0o700

// makeSambaDirectory opens the directory, which it makes if it isn't there.
func makeSambaDirectory(dir string) (*socketfile.Directory, error) {
	directory, err := socketfile.Make(dir, socketfile.Missing{Most: len(dir), Mode: sambaMode, Above: 0o755}) // all, be they as many as bytes
	if err != nil {
		return nil, err
	}
	mode, err := directory.Mode()
	if err == nil && mode != sambaMode {
		err = fmt.Errorf("%s has mode %04o, and smbd takes only %04o; if it is Samba's directory, change that", dir, mode, sambaMode)
	}
	if err != nil {
		directory.Close()
		return nil, err
	}
	return directory, nil
}

func (p *published) close() {
	p.file.Remove()
	p.directory.Close()
	p.sockets.Close()
}

// acceptArrived is AcceptPipe of a listener that has clients of two kinds.
func (l *Listener) acceptArrived() (*Conn, error) {
	select {
	case <-l.closing:
		return nil, opError("accept", l.pipe, net.ErrClosed)
	default:
	}
	select {
	case a := <-l.published.arrived:
		return a.conn, a.err
	case <-l.closing:
		return nil, opError("accept", l.pipe, net.ErrClosed)
	}
}

// arrive hands a client to who accepts. It reports whether the listener goes on.
func (l *Listener) arrive(a arrival) bool {
	select {
	case l.published.arrived <- a:
		return true
	case <-l.closing:
		if a.conn != nil {
			a.conn.Close()
		}
		return false
	}
}

// acceptHere accepts clients of this machine, one ahead of who asks for them.
func (l *Listener) acceptHere() {
	for {
		c, err := l.acceptLocal()
		if !l.arrive(arrival{c, err}) || errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// acceptNetwork accepts smbd, and has each of its clients told of at the same time.
func (l *Listener) acceptNetwork() {
	p := l.published
	for pause := firstPause; ; {
		socket, err := p.sockets.AcceptUnix()
		if err == nil {
			pause = firstPause
			if p.shaking.Add(1) > mostShaking {
				p.shaking.Add(-1)
				socket.Close()
				l.log(slog.LevelWarn, 0, "client of another machine not let in", "error", errCrowded)
				continue
			}
			go l.arriveFrom(socket)
			continue
		}
		select {
		case <-l.closing:
			return
		default:
		}
		l.log(slog.LevelWarn, 0, "no client of another machine can be accepted for now", "error", err, "pause", pause)
		select {
		case <-time.After(pause):
		case <-l.closing:
			return
		}
		pause = min(2*pause, lastPause)
	}
}

var errCrowded = errors.New("too many of them come at once, or nobody accepts them")

// arriveFrom hands on the client that smbd tells of on socket, which it takes over. Until it has an answer smbd keeps that client
// waiting with all that it does, so it gets one before anybody accepts.
func (l *Listener) arriveFrom(socket *net.UnixConn) {
	c, t, err := l.shakeUntilClosed(socket)
	l.published.shaking.Add(-1)
	switch {
	case err != nil:
		// Closing is how smbd is told no; it takes no notice of a status.
		socket.Close()
		l.log(slog.LevelWarn, 0, "client of another machine not let in", "client", t, "error", err)
	case c == nil: // smbd only wanted to know whether somebody is there
		socket.Close()
	default:
		l.observers.opened(c)
		c.server.mu.Lock()
		c.server.observe(WatchKnown)
		c.server.mu.Unlock()
		l.arrive(arrival{conn: c})
		l.published.waiting.Give(c.server.network.client)
	}
}

// shakeUntilClosed is shake, and ends when the listener is closed. The connection that it returns has no deadline.
func (l *Listener) shakeUntilClosed(socket *net.UnixConn) (*Conn, *token.Token, error) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-l.closing:
			socket.SetDeadline(time.Unix(1, 0))
		case <-done:
		}
	}()
	c, t, err := l.shake(socket)
	close(done)
	<-ended
	_ = socket.SetDeadline(time.Time{}) // it can only fail on a socket that is closed
	return c, t, err
}

// shake has smbd tell of its client, and lets that in or doesn't.
func (l *Listener) shake(socket *net.UnixConn) (*Conn, *token.Token, error) {
	if err := fromSamba(socket); err != nil {
		return nil, nil, err
	}
	if err := socket.SetDeadline(time.Now().Add(l.published.patience)); err != nil {
		return nil, nil, err
	}
	request, err := npa.ReadRequest(socket)
	if err != nil {
		return nil, nil, fmt.Errorf("smbd's handshake: %w", err)
	}
	if request.Session.Probe {
		_, err := socket.Write(request.Reply(l.config.Message))
		return nil, nil, err
	}
	t, err := l.config.tokenOf(request)
	if err != nil {
		return nil, t, err
	}
	if err = l.allows(t); err != nil {
		return nil, t, err
	}
	if !l.published.waiting.Take(request.Client.Addr()) {
		return nil, t, errCrowded
	}
	if _, err = socket.Write(request.Reply(l.config.Message)); err != nil {
		l.published.waiting.Give(request.Client.Addr())
		return nil, t, err
	}
	c := newConn(socket, l.pipe, l.config.Message)
	c.server = &serverEnd{
		listener: l, peer: t, network: newNetworkClient(request.Client, l.config.Message),
		known: &knownClient{qos: QoS{Level: t.Level(), Tracking: Static}, current: t, opened: t},
	}
	c.server.phase.Store(static)
	return c, t, nil
}

// fromSamba returns an error if the other end is not root: anybody else could say that he is anybody.
func fromSamba(socket *net.UnixConn) error {
	err := error(unix.EBADF)
	var cred *unix.Ucred
	control(socket, func(fd int) { cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil {
		return fmt.Errorf("asking who connected (SO_PEERCRED): %w", err)
	}
	if cred.Uid != 0 {
		return fmt.Errorf("process %d of uid %d connected to smbd's socket, and only root may tell of clients", cred.Pid, cred.Uid)
	}
	return nil
}

// tokenOf returns the token of smbd's client, with an error if it is not let in.
func (c *ListenConfig) tokenOf(r *npa.Request) (*token.Token, error) {
	s := &r.Session
	t, err := token.OverNetwork(s.UID, s.GID, s.Groups, token.Origin{
		Client: r.Client, Account: s.Account, Domain: s.Domain, SIDs: s.SIDs, Encrypted: s.Encrypted,
	})
	if err != nil {
		return nil, err
	}
	if c.AllowForeignRoot {
		t = t.AllowForeignRoot()
	}
	if !s.Authenticated {
		t = t.Restrict(token.Statement{Level: Identification, Capabilities: token.AllCapabilities})
		if !c.Network.Guests {
			return t, errGuest
		}
	}
	if t.Level() < c.Level {
		return t, fmt.Errorf("%w: over the network it allows %v, and this pipe takes %v", ErrLevel, t.Level(), c.Level)
	}
	return t, nil
}

var errGuest = errors.New("it is not authenticated: Samba let it in as a guest or anonymous")

// networkClient is what a server's end has for a client of another machine.
type networkClient struct {
	client  netip.Addr
	address net.Addr
	shut    atomic.Bool // the writing side
	frames  *frames     // in message mode
}

func newNetworkClient(client netip.AddrPort, message bool) *networkClient {
	n := &networkClient{client: client.Addr(), address: net.TCPAddrFromAddrPort(client)}
	if message {
		n.frames = newFrames()
	}
	return n
}
