package guise

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// longestFrame is the longest message, in bytes, that smbd carries: it puts the length before each, in 16 bits.
const longestFrame = 1<<16 - 1

// frames are the messages on a socket of smbd's.
type frames struct {
	reader *bufio.Reader
	left   int // of the message that is being read
	header int // bytes of the next one's length that have been read
	length [2]byte

	writing sync.Mutex // so that nothing comes after a message that was written in part
	broken  bool
}

// frameBuffer is how much is read ahead, so that a short message takes one system call.
const frameBuffer = 4096

func newFrames() *frames { return &frames{} }

// read returns the next message, or as much of it as fits and ErrMoreData. After a deadline it goes on where it was.
func (f *frames) read(socket *net.UnixConn, p []byte) (int, error) {
	if f.reader == nil {
		f.reader = bufio.NewReaderSize(socket, frameBuffer)
	}
	if f.left == 0 {
		for f.header < len(f.length) {
			n, err := f.reader.Read(f.length[f.header:])
			f.header += n
			switch {
			case err == io.EOF && f.header > 0:
				return 0, io.ErrUnexpectedEOF
			case err != nil:
				return 0, err
			}
		}
		f.header = 0
		if f.left = int(binary.LittleEndian.Uint16(f.length[:])); f.left == 0 {
			return 0, nil
		}
	}
	part := p[:min(len(p), f.left)]
	read := 0
	for read < len(part) {
		n, err := f.reader.Read(part[read:])
		read += n
		f.left -= n
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return read, err
		}
	}
	if f.left > 0 {
		return read, ErrMoreData
	}
	return read, nil
}

// framePool has memory for what is written: a message and its length go in one piece.
var framePool = sync.Pool{New: func() any { b := make([]byte, 0, 2+frameBuffer); return &b }}

func (f *frames) write(socket *net.UnixConn, p []byte) (int, error) {
	if err := fitsNetwork(len(p), longestFrame); err != nil {
		return 0, err
	}
	b := framePool.Get().(*[]byte)
	defer framePool.Put(b)
	*b = append(binary.LittleEndian.AppendUint16((*b)[:0], uint16(len(p))), p...)
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.broken {
		return 0, errPartFrame
	}
	n, err := socket.Write(*b)
	if err == nil {
		return len(p), nil
	}
	if n > 0 {
		// What comes next would be taken for the rest of this one.
		f.broken = true
		err = fmt.Errorf("%w: %w", errPartFrame, err)
	}
	return max(0, n-2), err
}

var errPartFrame = errors.New("a message was sent in part, so nothing more can be sent on this connection")
