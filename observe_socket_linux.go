package guise

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/socketfile"
	"github.com/guise-project/guise/token"
)

// letWatch makes the watch socket of a pipe at l.path, if that is asked for. A server is not to fail for want of it: where it can't
// be had the log says so.
func (l *Listener) letWatch() {
	if !l.config.Watch {
		return
	}
	o, err := newObservers(l.directory, l.path)
	if err != nil {
		l.config.Logger.Warn("nobody can watch this pipe", "pipe", l.pipe, "error", err)
		return
	}
	o.server.Pipe, o.server.Message = l.pipe, l.config.Message
	o.log = func(msg string, args ...any) { l.config.Logger.Warn(msg, append(args, "pipe", l.pipe)...) }
	l.observers = o
	go o.accept()
}

var errNotOwnSocket = errors.New("its socket was made by somebody else, and a watch socket lies beside one that this listener has made itself")

func newObservers(directory *socketfile.Directory, pipe string) (*observers, error) {
	if directory == nil {
		return nil, errNotOwnSocket
	}
	path := pipe + watchSuffix
	if len(path) > maxPath {
		return nil, fmt.Errorf("the watch socket's path %s would be %d bytes long, it can have %d", path, len(path), maxPath)
	}
	fd, file, err := bindSocket(directory, filepath.Base(path), &ListenConfig{Mode: 0o600})
	if err != nil {
		return nil, fmt.Errorf("making the watch socket %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	socket, err := net.FileListener(f)
	if err != nil {
		file.Remove()
		return nil, fmt.Errorf("listening on the watch socket %s: %w", path, err)
	}
	o := &observers{
		server:   WatchedServer{Path: pipe, PID: os.Getpid(), UID: uint32(os.Geteuid())},
		socket:   socket.(*net.UnixListener),
		file:     file,
		uid:      ownUser(),
		closing:  make(chan struct{}),
		watchers: make(map[*watcher]struct{}),
		there:    make(map[*serverEnd]*observed),
	}
	o.socket.SetUnlinkOnClose(false)
	return o, nil
}

// ownUser returns whose processes may watch besides root's: this process's user, or root alone if the kernel calls everybody so
// whom it can't map.
func ownUser() uint32 {
	uid := uint32(os.Geteuid())
	if t, err := token.FromIDs(uid, 0, nil); err != nil || t.Wearable() != nil {
		return 0
	}
	return uid
}

// accept lets those watch who may.
func (o *observers) accept() {
	for pause := firstPause; ; {
		conn, err := o.socket.AcceptUnix()
		switch {
		case err == nil:
			pause = firstPause
			o.admit(conn)
		case exhausted(err):
			select {
			case <-time.After(pause):
			case <-o.closing:
			}
			pause = min(2*pause, lastPause)
		default: // it is closed
			return
		}
	}
}

// admit lets somebody watch who may, and closes the connection of everybody else.
func (o *observers) admit(conn *net.UnixConn) {
	var peer *unix.Ucred
	err := net.ErrClosed
	control(conn, func(fd int) { peer, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err == nil && peer.Uid != 0 && peer.Uid != o.uid {
		err = fmt.Errorf("only root and uid %d may, not uid %d", o.uid, peer.Uid)
	}
	if err != nil {
		o.log("somebody was not let watch", "error", err)
		closePipe(conn, o.uid, false)
		return
	}
	control(conn, withoutMarks)
	o.watch(conn)
}
