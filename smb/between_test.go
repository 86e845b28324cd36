package smb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guise-project/guise"
)

// between returns the address of one in the middle, who passes on what edit makes of each frame. edit is called by one at a time.
func between(t *testing.T, edit func(fromServer bool, frame []byte) []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var running sync.WaitGroup
	pass := func(from, to net.Conn, fromServer bool) {
		defer running.Done()
		defer from.Close()
		defer to.Close()
		for {
			data := readFrame(from)
			if data == nil {
				return
			}
			mu.Lock()
			data = edit(fromServer, data)
			mu.Unlock()
			if _, err := to.Write(frame(data)); err != nil {
				return
			}
		}
	}
	running.Add(1)
	go func() {
		defer running.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", os.Getenv("SERVER_ADDRESS")+":445")
			if err != nil {
				c.Close()
				continue
			}
			running.Add(2)
			go pass(c, s, false)
			go pass(s, c, true)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

func command(packet []byte) (command uint16, code status) {
	if len(packet) < headerSize || string(packet[:4]) != "\xfeSMB" {
		return 0xffff, 0
	}
	return binary.LittleEndian.Uint16(packet[12:]), status(binary.LittleEndian.Uint32(packet[8:]))
}

const commandRead = 8

// echo dials by way of an address and has a message echoed. No error means that it came back as it was.
func echo(t *testing.T, d *Dialer, limit time.Duration) error {
	t.Helper()
	c, err := d.Dial(within(t, limit), pipe("echo"))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	want := []byte("what was sent")
	if _, err := c.Write(want); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%q came back as %q", want, got)
	}
	return nil
}

func TestInsideSomebodyBetween(t *testing.T) {
	needInside(t)
	for _, test := range []struct {
		name    string
		encrypt bool
		edit    func(fromServer bool, frame []byte) []byte
		want    error
	}{
		{"who only watches", false, func(_ bool, f []byte) []byte { return f }, nil},
		{"who makes the client a guest", false, func(fromServer bool, f []byte) []byte {
			if c, code := command(f); fromServer && c == commandSessionSetup && code == statusSuccess {
				f[headerSize+2] |= flagGuest
			}
			return f
		}, ErrLogon},
		{"who makes the client nobody", false, func(fromServer bool, f []byte) []byte {
			if c, code := command(f); fromServer && c == commandSessionSetup && code == statusSuccess {
				f[headerSize+2] |= flagNull
			}
			return f
		}, ErrLogon},
		{"who changes the negotiation", false, func(fromServer bool, f []byte) []byte {
			if c, _ := command(f); fromServer && c == commandNegotiate {
				f[headerSize+8] ^= 1 // the server's GUID
			}
			return f
		}, ErrProtocol},
		{"who takes the ciphers away", true, func(fromServer bool, f []byte) []byte {
			if c, _ := command(f); !fromServer && c == commandNegotiate {
				if i := bytes.Index(f, []byte{2, 0, 6, 0, 0, 0, 0, 0, 2, 0}); i > 0 {
					f[i] = 99
				}
			}
			return f
		}, ErrEncryption},
		{"who changes what is read", false, func(fromServer bool, f []byte) []byte {
			if c, code := command(f); fromServer && c == commandRead && code == statusSuccess {
				f[len(f)-1] ^= 1
			}
			return f
		}, ErrProtocol},
		{"who changes what is read and says that it is not signed", false, func(fromServer bool, f []byte) []byte {
			if c, code := command(f); fromServer && c == commandRead && code == statusSuccess {
				f[len(f)-1] ^= 1
				f[16] &^= 8
				clear(f[48:64])
			}
			return f
		}, ErrProtocol},
		{"who says that the pipe has ended", false, func(fromServer bool, f []byte) []byte {
			if c, code := command(f); fromServer && c == commandRead && code == statusSuccess {
				binary.LittleEndian.PutUint32(f[8:], uint32(statusEndOfFile))
			}
			return f
		}, ErrProtocol},
	} {
		d := aliceByPassword()
		d.Address = between(t, test.edit)
		d.RequireEncryption = test.encrypt
		err := echo(t, d, 20*time.Second)
		if test.want == nil && err != nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("somebody %s: %v; want %v", test.name, err, test.want)
		}
		t.Log(test.name, ": ", err)
	}
	untilNoPumps(t)
}

// What goes over the network after the logon is signed, and encrypted where that is asked for.
func TestInsideOnTheWire(t *testing.T) {
	needInside(t)
	for _, encrypt := range []bool{false, true} {
		established := false
		var frames atomic.Int32
		d := aliceByPassword()
		d.RequireEncryption = encrypt
		d.Address = between(t, func(fromServer bool, f []byte) []byte {
			c, code := command(f)
			switch {
			case established && encrypt && string(f[:4]) != "\xfdSMB":
				t.Errorf("a frame that is not encrypted: %q", f[:20])
			case established && !encrypt && code != 0x103 && (c == 0xffff || f[16]&8 == 0):
				t.Errorf("a frame that is not signed: %q", f[:20])
			}
			if established {
				frames.Add(1)
			}
			established = established || fromServer && c == commandSessionSetup && code == statusSuccess
			return f
		})
		if err := echo(t, d, 20*time.Second); err != nil {
			t.Error(err)
		}
		untilNoPumps(t)
		if n := frames.Load(); n < 8 {
			t.Errorf("%d frames were seen", n)
		}
	}
}

// Whatever a server says, nothing wrong comes out of it, nothing hangs and nothing panics.
func TestInsideServersThatLie(t *testing.T) {
	needInside(t)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed ", seed)
	outcomes := make(map[string]int)
	for i := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, i)) // the proxy's, once it is there
		at, n := random.IntN(12), 0
		bits := random.IntN(4) + 1
		d := aliceByPassword()
		d.RequireEncryption = random.IntN(3) == 0
		d.Address = between(t, func(fromServer bool, f []byte) []byte {
			if !fromServer {
				return f
			}
			if n++; n-1 == at {
				for range bits {
					f[random.IntN(len(f))] ^= 1 << random.IntN(8)
				}
				if random.IntN(8) == 0 {
					f = f[:random.IntN(len(f))]
				}
			}
			return f
		})
		begun := time.Now()
		err := echo(t, d, 500*time.Millisecond)
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("it took %v: %v", took, err)
		}
		if errors.Is(err, io.EOF) {
			t.Errorf("the end of the pipe by a lie: %v", err)
		}
		kind := fmt.Sprint(err)
		for _, known := range []error{ErrProtocol, ErrUnreachable, ErrCut, ErrLogon, ErrAccess, ErrEncryption, guise.ErrNoPipe, os.ErrDeadlineExceeded} {
			if errors.Is(err, known) {
				kind = known.Error()
			}
		}
		outcomes[kind]++
	}
	t.Log(outcomes)
	untilNoPumps(t)
}
