package smb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// counter is a server that nobody should call.
type counter struct {
	t       *testing.T
	address string
	calls   atomic.Int32
}

func newCounter(t *testing.T) *counter {
	c := &counter{t: t}
	c.address = serve(t, func(net.Conn) { c.calls.Add(1) })
	return c
}

func (c *counter) wantNone() {
	c.t.Helper()
	// What was sent before is seen before this.
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	until(c.t, func() error {
		if c.calls.Load() == 0 {
			return errors.New("the server has not seen the last call")
		}
		return nil
	})
	if n := c.calls.Load(); n != 1 {
		c.t.Errorf("the server was called %d times", n-1)
	}
}

// serve serves TCP connections on an address until the test's end, one after the other.
func serve(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			c.Close()
		}
	}()
	return l.Addr().String()
}

func frame(data []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
}

// readFrame reads a request, and returns nothing at the end.
func readFrame(c net.Conn) []byte {
	var length [4]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil
	}
	data := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(c, data); err != nil {
		return nil
	}
	return data
}

// answer is a packet for a request.
func answer(request []byte, code status, body []byte) []byte {
	packet := make([]byte, headerSize, headerSize+len(body))
	copy(packet, request[:headerSize])
	binary.LittleEndian.PutUint32(packet[8:], uint32(code))
	binary.LittleEndian.PutUint16(packet[14:], 10)
	binary.LittleEndian.PutUint32(packet[16:], 1) // a response
	if binary.LittleEndian.Uint16(packet[12:]) == commandSessionSetup {
		binary.LittleEndian.PutUint64(packet[40:], 7)
	}
	return append(packet, body...)
}

func negotiateBody(dialect uint16, limit uint32, cipher uint16) []byte {
	body := make([]byte, 64)
	le := binary.LittleEndian
	le.PutUint16(body, 65)
	le.PutUint16(body[2:], 3)
	le.PutUint16(body[4:], dialect)
	for _, offset := range []int{28, 32, 36} {
		le.PutUint32(body[offset:], limit)
	}
	le.PutUint16(body[56:], headerSize+64)
	contexts := 1
	body = append(body, 1, 0, 38, 0, 0, 0, 0, 0, 1, 0, 32, 0, 1, 0) // preauthentication: SHA-512, a salt
	body = append(body, make([]byte, 32+2)...)
	if cipher != 0 {
		contexts++
		body = append(body, 2, 0, 4, 0, 0, 0, 0, 0, 1, 0, byte(cipher), 0)
	}
	le.PutUint16(body[6:], uint16(contexts))
	le.PutUint32(body[60:], headerSize+64)
	return body
}

func setupBody(flags uint16, token []byte) []byte {
	body := make([]byte, 8)
	binary.LittleEndian.PutUint16(body, 9)
	binary.LittleEndian.PutUint16(body[2:], flags)
	binary.LittleEndian.PutUint16(body[4:], headerSize+8)
	binary.LittleEndian.PutUint16(body[6:], uint16(len(token)))
	return append(body, token...)
}

// waitEnd waits until the other side has gone.
func waitEnd(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func TestHostileServers(t *testing.T) {
	// negotiated answers the negotiation as it should be, and returns the logon.
	negotiated := func(c net.Conn) []byte {
		request := readFrame(c)
		if request == nil {
			return nil
		}
		c.Write(frame(answer(request, 0, negotiateBody(dialect311, 1<<20, 2))))
		return readFrame(c)
	}
	answers := func(code status, body []byte) func(net.Conn) {
		return func(c net.Conn) {
			if request := readFrame(c); request != nil {
				c.Write(frame(answer(request, code, body)))
				waitEnd(c)
			}
		}
	}
	logons := func(code status, body []byte) func(net.Conn) {
		return func(c net.Conn) {
			if request := negotiated(c); request != nil {
				c.Write(frame(answer(request, code, body)))
				waitEnd(c)
			}
		}
	}
	for _, test := range []struct {
		name    string
		serve   func(net.Conn)
		encrypt bool
		want    error
		quick   bool // it does not take until the deadline
	}{
		{name: "says nothing", serve: waitEnd, want: ErrUnreachable},
		{name: "ends", serve: func(net.Conn) {}, want: ErrUnreachable, quick: true},
		{name: "ends when asked", serve: func(c net.Conn) { readFrame(c) }, want: ErrUnreachable, quick: true},
		{name: "speaks HTTP", serve: func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); waitEnd(c) }, want: ErrProtocol, quick: true},
		{name: "speaks SMB 1", serve: func(c net.Conn) { c.Write(frame(append([]byte("\xffSMB"), make([]byte, 100)...))); waitEnd(c) }, want: ErrProtocol, quick: true},
		{name: "a huge frame", serve: func(c net.Conn) { c.Write([]byte("\x00\xff\xff\xff\xfeSMB")); waitEnd(c) }, want: ErrProtocol, quick: true},
		{name: "a huger frame", serve: func(c net.Conn) { c.Write([]byte("\xff\xff\xff\xff\xfeSMB")); waitEnd(c) }, want: ErrProtocol, quick: true},
		{name: "an empty frame", serve: func(c net.Conn) { c.Write(make([]byte, 64)); waitEnd(c) }, want: ErrProtocol, quick: true},
		{name: "half a frame", serve: func(c net.Conn) { c.Write([]byte("\x00\x00\x01\x00\xfeSMB")); waitEnd(c) }, want: ErrUnreachable},
		{name: "an older dialect", serve: answers(0, negotiateBody(0x0210, 1<<20, 2)), want: ErrProtocol, quick: true},
		{name: "the wildcard dialect", serve: answers(0, negotiateBody(0x02ff, 1<<20, 2)), want: ErrProtocol, quick: true},
		{name: "no dialect", serve: answers(0xc00000bb, make([]byte, 9)), want: ErrProtocol, quick: true},
		{name: "takes nothing", serve: answers(0, negotiateBody(dialect311, 0, 2)), want: ErrProtocol, quick: true},
		{name: "no cipher", serve: answers(0, negotiateBody(dialect311, 1<<20, 0)), encrypt: true, want: ErrEncryption, quick: true},
		{name: "a negotiation that is too short", serve: answers(0, make([]byte, 20)), want: ErrProtocol, quick: true},
		{name: "ends at the logon", serve: func(c net.Conn) { negotiated(c) }, want: ErrCut, quick: true},
		{name: "silent at the logon", serve: func(c net.Conn) { negotiated(c); waitEnd(c) }, want: ErrUnreachable},
		{name: "lets in without asking", serve: logons(0, setupBody(0, nil)), want: ErrProtocol, quick: true},
		{name: "lets in a guest", serve: logons(0, setupBody(flagGuest, nil)), want: ErrLogon, quick: true},
		{name: "lets nobody in", serve: logons(statusMoreProcessing, setupBody(flagNull, nil)), want: ErrLogon, quick: true},
		{name: "asks for garbage", serve: logons(statusMoreProcessing, setupBody(0, []byte("garbage"))), want: ErrProtocol, quick: true},
		{name: "an answer that is too short", serve: logons(0, make([]byte, 3)), want: ErrProtocol, quick: true},
		{name: "access denied", serve: logons(statusAccessDenied, make([]byte, 9)), want: ErrLogon, quick: true},
		{name: "too many", serve: logons(statusRequestNotAccepted, make([]byte, 9)), want: nil, quick: true},
		{name: "encryption without a cipher", serve: func(c net.Conn) {
			if request := readFrame(c); request != nil {
				c.Write(frame(answer(request, 0, negotiateBody(dialect311, 1<<20, 0))))
				if request = readFrame(c); request != nil {
					c.Write(frame(answer(request, 0, setupBody(flagEncrypt, nil))))
					waitEnd(c)
				}
			}
		}, want: ErrProtocol, quick: true},
		{name: "never has enough", serve: func(c net.Conn) {
			for request := negotiated(c); request != nil; request = readFrame(c) {
				c.Write(frame(answer(request, statusMoreProcessing, setupBody(0, []byte{0xa1, 7, 0x30, 5, 0xa0, 3, 10, 1, 1}))))
			}
		}, want: ErrProtocol, quick: true},
		{name: "waits for ever", serve: func(c net.Conn) {
			if request := negotiated(c); request != nil {
				for {
					if _, err := c.Write(frame(answer(request, 0x103, make([]byte, 9)))); err != nil {
						return
					}
				}
			}
		}, want: ErrUnreachable},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := serve(t, test.serve)
			{
				limit := 300 * time.Millisecond
				if test.quick {
					limit = 20 * time.Second
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				d := Dialer{Address: address, Password: &Password{User: "alice", Secret: "verysecret"}, RequireEncryption: test.encrypt}
				begun := time.Now()
				c, err := d.Dial(ctx, `\\host\pipe\x`)
				if took := time.Since(begun); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
				if err == nil {
					c.Close()
					t.Fatal("that opened the pipe")
				}
				if test.want != nil && !errors.Is(err, test.want) {
					t.Errorf("%v; want %v", err, test.want)
				}
				if strings.Contains(test.name, "cipher") && !strings.Contains(err.Error(), "cipher") {
					t.Errorf("%v; want one that says cipher", err)
				}
				if strings.Contains(err.Error(), "verysecret") || errors.Is(err, io.EOF) {
					t.Errorf("the error is %v", err)
				}
				if !test.quick && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v; want the context's", err)
				}
				t.Log(err)
				untilNoPumps(t)
			}
		})
	}
}

// A server that says how much is to come does not make this process ask for that much memory.
func TestHugeFramesTakeNoMemory(t *testing.T) {
	address := serve(t, func(c net.Conn) {
		for range 100 {
			if _, err := c.Write([]byte("\x00\xff\xff\xff\xfeSMB")); err != nil {
				return
			}
		}
		waitEnd(c)
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d := Dialer{Address: address, Password: &Password{User: "alice", Secret: "secret"}}
	if _, err := d.Dial(within(t, 20*time.Second), `\\host\pipe\x`); err == nil {
		t.Error("that opened the pipe")
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
}

func TestContextThatHasEnded(t *testing.T) {
	server := newCounter(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := Dialer{Address: server.address, Password: &Password{User: "alice", Secret: "secret"}}
	if _, err := d.Dial(ctx, `\\host\pipe\x`); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	server.wantNone()
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	d := Dialer{Address: l.Addr().String(), Password: &Password{User: "alice", Secret: "secret"}}
	_, err = d.Dial(within(t, 20*time.Second), `\\host\pipe\x`)
	if !errors.Is(err, ErrUnreachable) || !isRefused(err) || !errors.Is(err, os.ErrInvalid) && !strings.Contains(err.Error(), "smbd") {
		t.Error(err)
	}
}
