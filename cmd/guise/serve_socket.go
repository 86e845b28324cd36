package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/guise-project/guise"
)

// listen listens on the socket that systemd handed over, and on the pipe's own where there is none.
func (s *server) listen() (*guise.Listener, error) {
	files := activation.Files(true)
	for _, f := range files {
		defer f.Close()
	}
	switch len(files) {
	case 0:
		return s.makeSocket()
	case 1:
	default:
		return nil, fmt.Errorf("systemd handed over %d sockets and a server has one pipe: give each a service of its own", len(files))
	}
	s.handedOver = true
	if s.mode != 0 || s.access.group != "" {
		s.log.Warn("--mode and --group have no meaning for a socket that systemd made; SocketMode= and SocketGroup= of its unit have")
	}
	listener, err := guise.ListenFile(files[0], s.config())
	switch {
	case err != nil && s.network.on: // it may be about the other socket
		return nil, fmt.Errorf("the socket that systemd handed over: %w", err)
	case err != nil:
		return nil, fmt.Errorf("the socket that systemd handed over: %w; its unit has to have ListenStream= or ListenSequentialPacket= with a path, and not Accept=yes", err)
	}
	if isMessage := isMessageSocket(listener); isMessage != s.message {
		listener.Close()
		return nil, fmt.Errorf("the socket that systemd handed over is for %s, --message says %s: make ListenStream= or ListenSequentialPacket= of the socket unit agree",
			modeName(isMessage), modeName(s.message))
	}
	return listener, nil
}

// makeSocket listens on a socket of this server's own.
func (s *server) makeSocket() (*guise.Listener, error) {
	listener, err := guise.Listen(s.name, s.config())
	var changing *fs.PathError
	if errors.As(err, &changing) && changing.Op == "lchown" {
		return nil, fmt.Errorf("giving the socket %s the group %s (--group): %w; a server that is not root has to be in that group", changing.Path, s.access.group, changing.Err)
	}
	if err != nil {
		return nil, err
	}
	if s.socket, err = os.Lstat(addressText(listener.Addr())); err != nil {
		listener.Close()
		return nil, fmt.Errorf("looking at the socket that was made: %w", err)
	}
	return listener, nil
}

func isMessageSocket(listener *guise.Listener) bool { return listener.Addr().Network() == "unixpacket" }

func modeName(message bool) string {
	if message {
		return "messages"
	}
	return "bytes"
}

// addressText returns the path or abstract name (with @ in the place of its NUL) in a, "" if there is none.
func addressText(a net.Addr) string {
	if a == nil || a.String() == "@" { // how net prints that there is no name
		return ""
	}
	return a.String()
}
