package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
)

const (
	heldConnections = 200
	heldEarly       = 16 // as earlyConnections
	heldRounds      = 3
	heldPipe        = "held"
)

// memory states what a connection that has been used once costs the server's process and the client's: with guise on both sides, and
// on neither.
func (s *site) memory() ([]ratio.Row, error) {
	var rows []ratio.Row
	for _, mode := range carriedModes {
		var server, client [2][]float64 // ours, neither
		for range heldRounds {
			for i, kind := range []string{withGuise, bare} {
				grown, err := s.memoryOf(kind, mode)
				if err != nil {
					return nil, err
				}
				server[i] = append(server[i], grown[0])
				client[i] = append(client[i], grown[1])
			}
		}
		per := fmt.Sprintf("resident memory per connection of %d through smbd, %s, ", heldConnections, mode)
		rows = append(rows,
			ratio.Compare(per+"server: guise : a bare daemon", ratio.Information, server[0], server[1], "KiB"),
			ratio.Compare(per+"client: smb.Dial : go-smb2 alone", ratio.Information, client[0], client[1], "KiB"))
	}
	return rows, nil
}

// memoryOf returns the resident KiB per connection of one server and of one client.
func (s *site) memoryOf(kind, mode string) (grown [2]float64, err error) {
	server, err := s.startListening("machines-memory-server", kind, mode, heldPipe, s.server.NP)
	if err != nil {
		return grown, err
	}
	defer server.Stop()
	client, err := s.start(s.client, "machines-memory-client", kind, mode, s.server.Host)
	if err != nil {
		return grown, err
	}
	defer client.Stop()
	// Both have looked.
	if _, err := server.Line(); err != nil {
		return grown, err
	}
	if _, err := client.Line(); err != nil {
		return grown, err
	}
	if _, err := client.Write([]byte{'x'}); err != nil {
		return grown, err
	}
	for i, p := range []*role.Process{server, client} {
		line, err := p.Line()
		if err != nil {
			return grown, err
		}
		bytes, err := strconv.ParseFloat(line, 64)
		if err != nil {
			return grown, err
		}
		grown[i] = bytes / 1024 / heldConnections
	}
	return grown, nil
}

// holdAccepted is the role of a server that answers once on each connection and keeps it, and prints by how much its resident memory
// grew.
func holdAccepted(args []string) error {
	l, err := listenCarried(args)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("listening")
	buf := make([]byte, carried)
	return hold(heldConnections, heldEarly, func() (io.Closer, error) {
		c, err := l.Accept()
		if err != nil {
			return nil, err
		}
		n, err := c.Read(buf)
		if err == nil {
			_, err = c.Write(buf[:n])
		}
		return c, err
	}, sayLooked)
}

// holdDialled is the role of a client that asks once on each connection and keeps it.
func holdDialled(args []string) error {
	kind, mode, host := args[0], args[1], args[2]
	buf := make([]byte, carried)
	return hold(heldConnections, heldEarly, func() (io.Closer, error) {
		var c io.ReadWriteCloser
		var err error
		if kind == withGuise {
			c, err = dialPassword(host, heldPipe, mode)
		} else {
			c, err = openPlain(host, heldPipe)
		}
		if err != nil {
			return nil, err
		}
		return c, oneCarried(c, buf)
	}, func() error {
		if err := sayLooked(); err != nil {
			return err
		}
		_, err := io.ReadFull(os.Stdin, buf[:1])
		return err
	})
}

// sayLooked lets the others open what is measured.
func sayLooked() error {
	_, err := fmt.Println("looked")
	return err
}
