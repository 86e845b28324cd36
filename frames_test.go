package guise_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
)

// framed is a message as smbd sends it.
func framed(message string) []byte {
	return append(binary.LittleEndian.AppendUint16(nil, uint16(len(message))), message...)
}

// opensMessages returns both ends of a connection of messages from another machine.
func opensMessages(t *testing.T) (*smbd, *guise.Conn) {
	t.Helper()
	needRoot(t)
	l, path := published(t, guise.ListenConfig{Message: true})
	s := connectAsSamba(t, path)
	s.tells(told(t, "level7-ntlm", 61001))
	if kind := s.hears(); kind != 2 {
		t.Fatalf("the daemon answers with a pipe of type %d, want 2, of messages", kind)
	}
	return s, acceptUnread(t, l)
}

func TestMessagesFromAnotherMachine(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 4096)[:65535]
	for _, test := range []struct {
		name   string
		pieces []string // as they arrive
		buffer int
		want   []string // with + at the end where there is more of the message
		end    error
	}{
		{"one", []string{string(framed("hello"))}, 100, []string{"hello"}, io.EOF},
		{"two at once", []string{string(framed("a")) + string(framed("bc"))}, 100, []string{"a", "bc"}, io.EOF},
		{"byte by byte", []string{"\x02", "\x00", "h", "i", "\x01", "\x00", "!"}, 100, []string{"hi", "!"}, io.EOF},
		{"a buffer that just fits", []string{string(framed("hello"))}, 5, []string{"hello"}, io.EOF},
		{"a short buffer", []string{string(framed("hello")) + string(framed("x"))}, 2, []string{"he+", "ll+", "o", "x"}, io.EOF},
		{"a buffer of one byte", []string{string(framed("abc"))}, 1, []string{"a+", "b+", "c"}, io.EOF},
		{"the longest", []string{string(framed(long))}, 1 << 17, []string{long}, io.EOF},
		{"the longest in a short buffer", []string{string(framed(long))}, 65534, []string{long[:65534] + "+", long[65534:]}, io.EOF},
		{"longer than what is read ahead", []string{string(framed(long[:5000])), string(framed(long[:4094])), string(framed(long[:4095]))}, 1 << 17,
			[]string{long[:5000], long[:4094], long[:4095]}, io.EOF},
		{"an empty one", []string{"\x00\x00" + string(framed("x"))}, 100, []string{"", "x"}, io.EOF},
		{"nothing", nil, 100, nil, io.EOF},
		{"cut off in the length", []string{"\x05"}, 100, nil, io.ErrUnexpectedEOF},
		{"cut off after the length", []string{"\x05\x00"}, 100, []string{""}, io.ErrUnexpectedEOF},
		{"cut off in a message", []string{"\x05\x00abc"}, 100, []string{"abc"}, io.ErrUnexpectedEOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, c := opensMessages(t)
			go func() {
				for _, piece := range test.pieces {
					s.Write([]byte(piece))
				}
				s.CloseWrite()
			}()
			var got []string
			buf := make([]byte, test.buffer)
			for {
				n, err := c.Read(buf)
				text := string(buf[:n])
				switch {
				case err == nil:
				case errors.Is(err, guise.ErrMoreData):
					text += "+"
				default:
					if !errors.Is(err, test.end) {
						t.Errorf("at the end: %v, want %v", err, test.end)
					}
					if n > 0 || errors.Is(err, io.ErrUnexpectedEOF) && len(got) < len(test.want) {
						got = append(got, text)
					}
					if !equalTexts(got, test.want) {
						t.Errorf("read %q, want %q", short(got), short(test.want))
					}
					return
				}
				got = append(got, text)
			}
		})
	}
}

func equalTexts(a, b []string) bool { return strings.Join(a, "\x00|") == strings.Join(b, "\x00|") }

func short(texts []string) (s []string) {
	for _, text := range texts {
		if len(text) > 20 {
			text = text[:8] + "…" + text[len(text)-8:]
		}
		s = append(s, text)
	}
	return s
}

// TestMessageGoesOnAfterADeadline: whatever had come of it is not lost.
func TestMessageGoesOnAfterADeadline(t *testing.T) {
	s, c := opensMessages(t)
	deadlinePassed := func(want string) {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		b := make([]byte, 100)
		if n, err := c.Read(b); string(b[:n]) != want || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %q, %v, want %q and that the deadline has passed", b[:n], err, want)
		}
		c.SetReadDeadline(time.Time{})
	}
	deadlinePassed("")
	for _, piece := range []string{"\x06", "\x00"} {
		s.Write([]byte(piece))
		waitReadable(t, c)
		deadlinePassed("")
	}
	s.Write([]byte("abc"))
	waitReadable(t, c)
	deadlinePassed("abc")
	s.Write([]byte("def"))
	b := make([]byte, 100)
	if n, err := c.Read(b); string(b[:n]) != "def" || err != nil {
		t.Errorf("the rest of the message: %q, %v", b[:n], err)
	}
}

// waitReadable waits until something has come on the connection's socket.
func waitReadable(t *testing.T, c *guise.Conn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Read(func(fd uintptr) bool { return readable(int(fd)) }); err != nil {
		t.Fatal(err)
	}
}

func TestMessagesToAnotherMachine(t *testing.T) {
	s, c := opensMessages(t)
	long := strings.Repeat("0123456789abcdef", 4096)
	for _, message := range []string{"x", "hello", long[:4096], long[:65535]} {
		written := make(chan error, 1)
		go func() {
			n, err := c.Write([]byte(message))
			if err == nil && n != len(message) {
				err = io.ErrShortWrite
			}
			written <- err
		}()
		got := make([]byte, 2+len(message))
		if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, framed(message)) {
			t.Errorf("a message of %d bytes arrives as %q…, %v", len(message), got[:min(len(got), 10)], err)
		}
		if err := <-written; err != nil {
			t.Errorf("writing a message of %d bytes: %v", len(message), err)
		}
	}
	if n, err := c.Write([]byte(long)); n != 0 || !errors.Is(err, guise.ErrMessageTooLong) {
		t.Errorf("writing a message of 65536 bytes: %d, %v; want ErrMessageTooLong", n, err)
	}
	if n, err := c.Write(nil); n != 0 || err == nil {
		t.Errorf("writing an empty message: %d, %v; smbd would take it for the end", n, err)
	}
	c.Write([]byte("after it"))
	got := make([]byte, 10)
	if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, framed("after it")) {
		t.Errorf("after messages that can't be sent: %q, %v", got, err)
	}
}

// TestMessageSentInPartIsTheLast: what would come next is the rest of it to smbd.
func TestMessageSentInPartIsTheLast(t *testing.T) {
	_, c := opensMessages(t)
	b := make([]byte, 65535)
	c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	var err error
	for err == nil {
		_, err = c.Write(b)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("writing to smbd that does not read: %v", err)
	}
	c.SetWriteDeadline(time.Time{})
	if n, err := c.Write([]byte("x")); n != 0 || err == nil || !strings.Contains(err.Error(), "in part") {
		t.Errorf("writing after that: %d, %v", n, err)
	}
}

func TestBytesGoAsTheyAre(t *testing.T) {
	needRoot(t)
	l, path := published(t, guise.ListenConfig{})
	s := open(t, path, append(told(t, "level7-ntlm", 61001), "sent along with the handshake"...))
	c := acceptUnread(t, l)
	b := make([]byte, len("sent along with the handshake"))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "sent along with the handshake" {
		t.Errorf("the daemon reads %q, %v", b, err)
	}
	big := bytes.Repeat([]byte("0123456789"), 50_000)
	go func() { s.Write(big); s.CloseWrite() }()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, big) {
		t.Errorf("of %d bytes %d arrive, %v", len(big), len(got), err)
	}
	go func() { c.Write(big); c.CloseWrite() }()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, big) {
		t.Errorf("of %d bytes %d arrive at the client, %v", len(big), len(got), err)
	}
}

func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1
}

// TestMessagesOfManyWritersStayWhole though a deadline passes in the middle of one while others wait to be written.
func TestMessagesOfManyWritersStayWhole(t *testing.T) {
	for range 30 {
		s, c := opensMessages(t)
		var writers sync.WaitGroup
		message := bytes.Repeat([]byte("x"), 60_000)
		late := make(chan struct{}, 100)
		c.SetWriteDeadline(time.Now().Add(2 * time.Millisecond))
		for range 8 {
			writers.Go(func() {
				for range 3 {
					if _, err := c.Write(message); errors.Is(err, os.ErrDeadlineExceeded) {
						late <- struct{}{}
					}
				}
			})
		}
		inTime(t, "a write ends that nobody reads, when its time is up", late)
		c.SetWriteDeadline(time.Time{})
		read := make(chan struct{})
		go func() {
			defer close(read)
			got := make([]byte, 2+len(message))
			for {
				n, err := io.ReadFull(s, got)
				if n > 0 && !bytes.Equal(got[:n], framed(string(message))[:n]) {
					t.Errorf("in the middle of a message comes another, or one begins in another's middle: %q", got[:min(n, 8)])
				}
				if err != nil {
					return // the end of all, or of the last message, in part
				}
			}
		}()
		writers.Wait()
		c.CloseWrite()
		s.SetReadDeadline(time.Now().Add(patience))
		<-read
	}
}
