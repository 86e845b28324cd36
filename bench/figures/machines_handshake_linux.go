package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
)

const (
	handshakes   = 300
	directRounds = 300
	directEach   = 50
)

// measureHandshake is the role of one that takes down a handshake of smbd's, and then is smbd: it connects to each daemon, says the same,
// waits for the answer, and has its data echoed. Its argument is smbd's directory. It begins when its standard input has a byte.
func measureHandshake(args []string) error {
	np := args[0]
	l, err := net.Listen("unix", filepath.Join(np, recorded))
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("listening")
	c, err := l.Accept()
	if err != nil {
		return err
	}
	request, err := shakeBare(c, false)
	if err != nil {
		return err
	}
	c.Close()
	if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
		return err
	}
	at := func(kind, mode string) string { return filepath.Join(np, kind+"-"+mode) }
	took, err := shakeInTurn(request, at(withGuise, inBytes), at(bare, inBytes))
	if err != nil {
		return err
	}
	rows := []ratio.Row{ratio.Compare("from smbd's connect to the answer, guise : a bare daemon", ratio.Information, took[0], took[1], "µs")}
	for _, mode := range carriedModes {
		var sides []ratio.Side
		for _, kind := range []string{withGuise, bare} {
			c, err := shakenBy(at(kind, mode), request)
			if err != nil {
				return err
			}
			defer c.Close()
			sides = append(sides, framedTrips(c, mode))
		}
		t := ratio.Alternate(directRounds, directEach, sides...)
		rows = append(rows, ratio.Compare(fmt.Sprintf("%d B echo on smbd's socket, without smbd, %s, guise : a bare daemon", carried, mode), ratio.Information, t[0], t[1], "µs"))
	}
	return ratio.Print(rows)
}

// shakenBy connects to a daemon as smbd does.
func shakenBy(path string, request []byte) (net.Conn, error) {
	c, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	_, err = c.Write(request)
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, replySize))
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("shaking hands with %s: %w", path, err)
	}
	return c, nil
}

// shakeInTurn returns how long each daemon takes, round by round. What ending a connection takes is not in it.
func shakeInTurn(request []byte, paths ...string) ([][]float64, error) {
	took := make([][]float64, len(paths))
	for round := range handshakes + ratio.WarmUp {
		for k := range paths {
			i := k
			if round%2 == 1 {
				i = len(paths) - 1 - k
			}
			begun := time.Now()
			c, err := shakenBy(paths[i], request)
			if err != nil {
				return nil, err
			}
			if round >= ratio.WarmUp {
				took[i] = append(took[i], 1e3*milliseconds(begun))
			}
			c.Close()
			time.Sleep(between)
		}
	}
	return took, nil
}

// framedTrips is a side of round trips as smbd makes them.
func framedTrips(c net.Conn, mode string) ratio.Side {
	var frame []byte
	if mode == inMessages {
		frame = binary.LittleEndian.AppendUint16(frame, carried)
	}
	frame = append(frame, make([]byte, carried)...)
	return func(n int) {
		for range n {
			if err := oneCarried(c, frame); err != nil {
				role.Fatal(err)
			}
		}
	}
}
