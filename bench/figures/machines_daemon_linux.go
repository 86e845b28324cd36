package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/role"
)

const (
	carried = 1024 // bytes there and back through smbd

	withGuise = "guise"
	bare      = "bare"

	inBytes    = "bytes"
	inMessages = "messages"
)

var carriedModes = []string{inBytes, inMessages}

// startDaemons starts an echoing process of each kind and mode, whose pipes are called KIND-MODE.
func (s *site) startDaemons() (end func(), err error) {
	var running []*role.Process
	end = func() {
		for _, p := range running {
			p.Stop()
		}
	}
	for _, kind := range []string{withGuise, bare} {
		for _, mode := range carriedModes {
			p, err := s.startListening("machines-daemon", kind, mode, kind+"-"+mode, s.server.NP)
			if err != nil {
				end()
				return nil, err
			}
			running = append(running, p)
		}
	}
	return end, nil
}

// serveMachines is the role of an echoing process that smbd connects to.
func serveMachines(args []string) error {
	l, err := listenCarried(args)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("listening")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go echo(c, carried)
		}
	}()
	role.AwaitEnd()
	return nil
}

// listenCarried listens for smbd. Its arguments are the kind of the daemon, its mode, its pipe's name, and smbd's directory.
func listenCarried(args []string) (net.Listener, error) {
	kind, mode, name, np := args[0], args[1], args[2], args[3]
	if kind == withGuise {
		return guise.Listen(filepath.Join("/run", name), &guise.ListenConfig{Message: mode == inMessages, Network: &guise.Network{Name: name, Dir: np}})
	}
	path := filepath.Join(np, name)
	os.Remove(path) // of a process before
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return &bareListener{Listener: l, message: mode == inMessages}, nil
}

// bareListener has the handshake with smbd, and looks at nothing that it is told.
type bareListener struct {
	net.Listener
	message bool
}

// Accept shakes hands at once, so it is for clients that don't keep it waiting.
func (l *bareListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if _, err := shakeBare(c, l.message); err != nil {
			c.Close()
			continue
		}
		if l.message {
			return &bareMessages{Conn: c}, nil
		}
		return c, nil
	}
}

// shakeBare reads smbd's request, which it returns, and answers it.
func shakeBare(c net.Conn, message bool) ([]byte, error) {
	request := make([]byte, 4, 4096)
	if _, err := io.ReadFull(c, request); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(request)
	if n < 8 || n > 1<<20 {
		return nil, errors.New("smbd's request has an impossible length")
	}
	request = append(request, make([]byte, n)...)
	if _, err := io.ReadFull(c, request[4:]); err != nil {
		return nil, err
	}
	_, err := c.Write(bareReply(request, message))
	return request, err
}

// replySize is how long smbd's daemons' answer is.
const replySize = 36

// bareReply is "yes" at the level of the request.
func bareReply(request []byte, message bool) []byte {
	kind := uint16(1)
	if message {
		kind = 2
	}
	reply := make([]byte, 0, replySize)
	reply = binary.BigEndian.AppendUint32(reply, replySize-4)
	reply = append(reply, "NPAM"...)
	reply = append(reply, request[8:12]...)
	reply = append(reply, request[8:12]...)
	reply = binary.LittleEndian.AppendUint16(reply, kind)
	reply = binary.LittleEndian.AppendUint16(reply, 0x05ff)
	reply = binary.LittleEndian.AppendUint32(reply, 0)
	reply = binary.LittleEndian.AppendUint64(reply, 4096)
	return binary.LittleEndian.AppendUint32(reply, 0)
}

// bareMessages has messages as cheaply as they can be had by somebody who waits for each answer: a message and its length are one read
// or one write, and nothing is read ahead.
type bareMessages struct {
	net.Conn
	buf [2 + carried]byte
}

func (c *bareMessages) Read(p []byte) (int, error) {
	have, want := 0, 2
	for have < want {
		n, err := c.Conn.Read(c.buf[have:])
		if err != nil {
			return 0, err
		}
		if have += n; have >= 2 {
			want = 2 + int(binary.LittleEndian.Uint16(c.buf[:]))
		}
	}
	if have > want || want-2 > len(p) {
		return 0, errors.New("more than one message at once, or one that is too long")
	}
	return copy(p, c.buf[2:want]), nil
}

func (c *bareMessages) Write(p []byte) (int, error) {
	binary.LittleEndian.PutUint16(c.buf[:], uint16(len(p)))
	n := copy(c.buf[2:], p)
	_, err := c.Conn.Write(c.buf[:2+n])
	return n, err
}
