package guise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/socketfile"
)

// Watch watches the connections of the pipe called name on this machine, from those that are there until ctx ends or the server
// closes its listener, whose last event is of kind [WatchEnded]. The server has to let itself be watched ([ListenConfig.Watch]); root
// and the server's own user may.
//
// An error, an [*OpError], is the last that it yields: [ErrNoPipe], [ErrNobodyListens], [ErrNotWatched], [fs.ErrPermission],
// [ErrBusy] if as many watch as may, [io.ErrUnexpectedEOF] if the server has gone, or ctx's. A slow reader does not hold up the server; see [WatchMissed].
func Watch(ctx context.Context, name string) iter.Seq2[*WatchEvent, error] {
	return func(yield func(*WatchEvent, error) bool) {
		err := watch(ctx, name, yield)
		if err == nil {
			return
		}
		if ended := ctx.Err(); ended != nil {
			err = ended
		}
		yield(nil, opError("watch", name, err))
	}
}

// watchAnswer is how long a server may take to say that somebody may watch.
const watchAnswer = 10 * time.Second

// mostLine is the longest line that is taken: a context may have 65536 groups, a way has many processes.
const mostLine = 8 << 20

func watch(ctx context.Context, name string, yield func(*WatchEvent, error) bool) error {
	a, err := parseAddress(name)
	if err != nil {
		return err
	}
	conn, path, err := dialWatch(ctx, a)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	conn.SetReadDeadline(time.Now().Add(watchAnswer))
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, mostLine)
	lines.Split(func(data []byte, _ bool) (int, []byte, error) {
		return bufio.ScanLines(data, false) // what is not a whole line is none
	})
	begun := false
	for lines.Scan() {
		e, err := parseWatchEvent(lines.Bytes())
		switch {
		case err != nil:
			return fmt.Errorf("the server sends what is no event: %w", err)
		case !begun && e.Kind == WatchEnded && e.Error != "":
			return fmt.Errorf("%w: %s", ErrBusy, e.Error)
		case !begun && e.Kind == WatchEnded:
			return ErrNobodyListens
		case !begun && (e.Kind != WatchBegun || e.Version != watchVersion || e.Server == nil):
			return fmt.Errorf("the server's events are of version %d, this program understands version %d", e.Version, watchVersion)
		case !begun:
			begun = true
			conn.SetReadDeadline(time.Time{})
		}
		if !yield(e, nil) || e.Kind == WatchEnded {
			return nil
		}
	}
	err = lines.Err()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the server does not say anything: %w", err)
	case err == nil && !begun && !mayWatch(path):
		return notPermitted(path, unix.EACCES)
	case err == nil || errors.Is(err, unix.ECONNRESET):
		return fmt.Errorf("the server has gone: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// dialWatch connects to the watch socket of the pipe at a, and returns that one's path.
func dialWatch(ctx context.Context, a address) (*net.UnixConn, string, error) {
	paths := []string{a.path}
	if a.path == "" {
		paths = nil
		for _, dir := range directories() {
			paths = append(paths, filepath.Join(dir, a.name))
		}
	}
	for _, pipe := range paths {
		path := pipe + watchSuffix
		err := error(unix.ENOENT)
		fd := -1
		if len(path) <= maxPath {
			fd, err = connectTo(ctx, path, unix.SOCK_STREAM)
		}
		switch err {
		case nil:
			conn, err := unixConn(fd, path)
			return conn, path, err
		case unix.EACCES:
			return nil, path, notPermitted(path, err)
		case unix.ENOENT, unix.ENOTDIR, unix.ECONNREFUSED:
		default:
			return nil, path, err
		}
		switch life, _ := socketfile.LifeOf(pipe); life {
		case socketfile.None:
		case socketfile.Dead:
			return nil, path, ErrNobodyListens
		default:
			return nil, path, ErrNotWatched
		}
	}
	return nil, "", fmt.Errorf("%w (looked for %v)", ErrNoPipe, paths)
}

func unixConn(fd int, path string) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// mayWatch reports whether a server should let this process watch.
func mayWatch(path string) bool {
	var socket unix.Stat_t
	uid := unix.Geteuid()
	return uid == 0 || unix.Stat(path, &socket) == nil && int(socket.Uid) == uid
}

// notPermitted says who may watch: root, and whoever the socket belongs to.
func notPermitted(path string, err error) error {
	var socket unix.Stat_t
	if unix.Stat(path, &socket) != nil {
		return fmt.Errorf("only root and the server's own user may watch it: %w", err)
	}
	if socket.Uid == 0 {
		return fmt.Errorf("only root may watch it: %w", err)
	}
	return fmt.Errorf("only root and uid %d, the server's, may watch it: %w", socket.Uid, err)
}
