package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// request is what a client writes to have its server enter a scope, and a server to the next of its chain.
type request struct {
	Client, Place uint32
	Hop, Hops     uint32 // the server's place in the chain, from 1, and the chain's length
	First, Last   uint64 // the states of the client that the scope may ever show
	Duration      time.Duration
}

func (r *request) write(w io.Writer) error {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, r); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (r *request) read(from io.Reader) error {
	b := make([]byte, binary.Size(r))
	if _, err := io.ReadFull(from, b); err != nil {
		return err
	}
	return binary.Read(bytes.NewReader(b), binary.NativeEndian, r)
}

// wrap says what an error is of.
func (r *request) wrap(err error) error {
	return fmt.Errorf("client %d (%v), hop %d of %d: %w", r.Client, partOf(int(r.Client)), r.Hop, r.Hops, err)
}

// answer is what a server writes when it has left the scope.
var answer = []byte{'.'}
