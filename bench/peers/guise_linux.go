package main

import (
	"io"
	"path/filepath"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/role"
)

// withGuise is the way's name.
func withGuise(tracking guise.Tracking) string { return "guise " + tracking.String() }

// guiseWith is guise's protocol: the server reads the file in a scope of its client.
func guiseWith(tracking guise.Tracking) protocol {
	socket := func(dir string) string { return filepath.Join(dir, tracking.String()) }
	return protocol{
		serve: func(dir string, ready func(), until func()) error {
			l, err := guise.Listen(socket(dir), nil)
			if err != nil {
				return err
			}
			defer l.Close()
			go role.ServeFiles(l)
			ready()
			until()
			return nil
		},
		dial: func(dir string) (connection, error) {
			c, err := guise.Dial(socket(dir), &guise.QoS{Tracking: tracking})
			if err != nil {
				return nil, err
			}
			return stream{c}, nil
		},
	}
}

// stream is a connection that carries names one way and what is in the files the other.
type stream struct{ io.ReadWriteCloser }

func (s stream) ask(name string, answer []byte) error {
	if _, err := io.WriteString(s, name); err != nil {
		return err
	}
	_, err := io.ReadFull(s, answer)
	return err
}

func (s stream) close() error { return s.Close() }
