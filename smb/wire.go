package smb

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// wire is the TCP connection as go-smb2 sees it. It watches what go-smb2 doesn't:
//   - that frames are no longer than what was asked for can be,
//   - that the server speaks SMB 3.1.1, where the negotiation itself is signed, and can be written to,
//   - that nobody is let in as a guest or as nobody. go-smb2 looks for that in the first answer to a logon only, takes the last one
//     unverified, and neither signs nor verifies anything for guests,
//   - that where encryption is required, nothing goes unencrypted. go-smb2 encrypts where the server wants it, so the server is made to.
type wire struct {
	net.Conn
	encrypt bool

	// Of the receiver.
	pending  []byte // read already, for go-smb2
	left     int    // of the frame, still to be read
	cipher   bool   // was negotiated
	settled  atomic.Bool
	received atomic.Bool // anything at all
	greeted  atomic.Bool // the answer to the negotiation

	// Of the sender.
	length []byte // of the frame that comes next

	mu     sync.Mutex
	err    error  // what was wrong with the server
	status status // of the last answer to a logon
	logon  bool   // there was one
}

const (
	dialect311 = 0x0311

	// longestFrame is more than what a READ of 64 KiB is answered with, encrypted.
	longestFrame     = 1<<16 + 1024
	longestHandshake = 1<<16 + 1024

	headerSize = 64

	commandNegotiate    = 0
	commandSessionSetup = 1

	flagGuest   = 1
	flagNull    = 2
	flagEncrypt = 4

	contextCipher = 2

	// smallestLimit is what a server has to take and give at once.
	smallestLimit = 1 << 16
)

// established says that the logon is over.
func (w *wire) established() { w.settled.Store(true) }

// fail keeps the first error. go-smb2 would keep its text at best.
func (w *wire) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	return w.err
}

func (w *wire) broken(format string, args ...any) error {
	return w.fail(fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...)))
}

// wrong returns what was wrong with the server, nil if nothing was.
func (w *wire) wrong() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// logonStatus returns the server's answer to the logon, and whether there was one.
func (w *wire) logonStatus() (status, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status, w.logon
}

// Read reads for go-smb2's receiver, which asks for a frame's length and then for the frame.
func (w *wire) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(w.pending) == 0 && w.left == 0 {
		if err := w.frame(); err != nil {
			return 0, err
		}
	}
	if len(w.pending) > 0 {
		n := copy(p, w.pending)
		w.pending = w.pending[n:]
		return n, nil
	}
	n, err := w.Conn.Read(p[:min(len(p), w.left)])
	w.left -= n
	return n, err
}

// frame reads what has to be seen of the next frame.
func (w *wire) frame() error {
	var head [8]byte
	if _, err := io.ReadFull(w.Conn, head[:]); err != nil {
		return err
	}
	w.received.Store(true)
	n := int(binary.BigEndian.Uint32(head[:]))
	protocol := string(head[4:])
	if w.settled.Load() {
		switch {
		case n < 4 || n > longestFrame:
			return w.broken("a frame of %d bytes", n)
		case w.encrypt && protocol != "\xfdSMB":
			return w.fail(fmt.Errorf("%w: the server has sent something that is not encrypted", ErrEncryption))
		}
		w.pending, w.left = append(w.pending[:0], head[:]...), n-4
		return nil
	}
	switch {
	case protocol != "\xfeSMB" && n != 0:
		return w.broken("it does not speak SMB 2 or 3")
	case n < headerSize || n > longestHandshake:
		return w.broken("a frame of %d bytes", n)
	}
	frame := make([]byte, 4+n)
	copy(frame, head[:])
	if _, err := io.ReadFull(w.Conn, frame[8:]); err != nil {
		return err
	}
	if err := w.handshake(frame[4:]); err != nil {
		return err
	}
	w.pending = frame
	return nil
}

// handshake looks at a packet from before the logon is over.
func (w *wire) handshake(packet []byte) error {
	if binary.LittleEndian.Uint32(packet[20:]) != 0 {
		return w.broken("several answers to one request")
	}
	code := status(binary.LittleEndian.Uint32(packet[8:]))
	body := packet[headerSize:]
	switch binary.LittleEndian.Uint16(packet[12:]) {
	case commandNegotiate:
		if code != statusSuccess {
			return w.broken("it does not speak SMB 3.1.1 (%v)", code)
		}
		return w.negotiated(packet, body)
	case commandSessionSetup:
		return w.loggedOn(code, body)
	}
	return w.broken("an answer to something that was not asked")
}

func (w *wire) negotiated(packet, body []byte) error {
	if len(body) < 64 {
		return w.broken("its first answer is too short")
	}
	if dialect := binary.LittleEndian.Uint16(body[4:]); dialect != dialect311 {
		return w.broken("it speaks SMB dialect %#x, and not 3.1.1", dialect)
	}
	for _, offset := range []int{28, 32, 36} { // transactions, reads, writes
		if limit := binary.LittleEndian.Uint32(body[offset:]); limit < smallestLimit {
			return w.broken("it takes only %d bytes at once", limit)
		}
	}
	w.greeted.Store(true)
	w.cipher = hasCipher(packet, int(binary.LittleEndian.Uint16(body[6:])), int(binary.LittleEndian.Uint32(body[60:])))
	if w.encrypt && !w.cipher {
		return w.fail(fmt.Errorf("%w: the server has no cipher in common with this machine; does its smb.conf say \"server smb encrypt = off\"?", ErrEncryption))
	}
	return nil
}

// hasCipher reports whether the answer to the negotiation names a cipher.
func hasCipher(packet []byte, count, offset int) bool {
	for ; count > 0; count-- {
		if offset < headerSize || offset > len(packet)-8 {
			return false
		}
		kind := binary.LittleEndian.Uint16(packet[offset:])
		length := int(binary.LittleEndian.Uint16(packet[offset+2:]))
		data := packet[offset+8:]
		if length > len(data) {
			return false
		}
		if kind == contextCipher {
			return length >= 4 && binary.LittleEndian.Uint16(data) == 1 && binary.LittleEndian.Uint16(data[2:]) != 0
		}
		offset += 8 + (length+7)&^7
	}
	return false
}

func (w *wire) loggedOn(code status, body []byte) error {
	w.mu.Lock()
	w.status, w.logon = code, true
	w.mu.Unlock()
	if code != statusSuccess && code != statusMoreProcessing {
		return nil // go-smb2 fails
	}
	if len(body) < 8 {
		return w.broken("its answer to the logon is too short")
	}
	granted := binary.LittleEndian.Uint16(body[2:])
	if granted&(flagGuest|flagNull) != 0 {
		return w.fail(fmt.Errorf("%w: the server takes the account for a guest, which nobody asked for; does it know the account?", ErrLogon))
	}
	if granted&flagEncrypt != 0 && !w.cipher {
		return w.broken("it wants encryption without a cipher")
	}
	if w.encrypt && code == statusSuccess {
		// The flag is not part of what the keys are made of.
		binary.LittleEndian.PutUint16(body[2:], granted|flagEncrypt)
	}
	return nil
}

// Write writes for go-smb2's sender, which writes a frame's length and then the frame. Both go out at once.
func (w *wire) Write(p []byte) (int, error) {
	if len(w.length) == 0 {
		if len(p) != 4 {
			return 0, w.broken("go-smb2 does not write as it did")
		}
		w.length = append(w.length, p...)
		return len(p), nil
	}
	if w.encrypt && w.settled.Load() && (len(p) < 4 || string(p[:4]) != "\xfdSMB") {
		return 0, w.fail(fmt.Errorf("%w: something was to be sent that is not", ErrEncryption))
	}
	n, err := (&net.Buffers{w.length, p}).WriteTo(w.Conn)
	w.length = w.length[:0]
	return max(0, int(n)-4), err
}
