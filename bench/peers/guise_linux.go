package main

import (
	"io"
	"os"
	"path/filepath"

	"github.com/guise-project/guise"
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
			go func() {
				for {
					c, err := l.AcceptPipe()
					if err != nil {
						return
					}
					go answerAsClient(c)
				}
			}()
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

func answerAsClient(c *guise.Conn) {
	defer c.Close()
	name := make([]byte, longestName)
	for {
		n, err := c.Read(name)
		if err != nil {
			return
		}
		var b []byte
		err = c.RunAsClient(func(*guise.Scope) error {
			b, err = os.ReadFile(string(name[:n]))
			return err
		})
		if err != nil {
			return
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// longestName is how long the name of a file is at most. One is written at once and so read at once.
const longestName = 4096

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
