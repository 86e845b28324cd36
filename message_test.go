package guise

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connectedPair returns both ends of a pipe to which the client has written nothing yet.
func connectedPair(t *testing.T, config *ListenConfig, qos *QoS) (client, server *Conn) {
	t.Helper()
	l := listenAt(t, config)
	client, err := Dial(l.Addr().String(), qos)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(patience))
	return client, acceptFrom(t, l)
}

// directions calls f for what a client writes to its server and for the answers, under each tracking.
func directions(t *testing.T, f func(t *testing.T, from, to *Conn)) {
	for _, tracking := range []Tracking{TrackingUnstated, Static, Dynamic} {
		t.Run(fmt.Sprintf("to the server, %v", tracking), func(t *testing.T) {
			client, server := connectedPair(t, &ListenConfig{Message: true}, &QoS{Tracking: tracking})
			f(t, client, server)
		})
		t.Run(fmt.Sprintf("to the client, %v", tracking), func(t *testing.T) {
			client, server := connectedPair(t, &ListenConfig{Message: true}, &QoS{Tracking: tracking})
			f(t, server, client)
		})
	}
}

func send(t *testing.T, c *Conn, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if n, err := c.Write([]byte(m)); err != nil || n != len(m) {
			t.Fatalf("Write(%.20q) = %d, %v", m, n, err)
		}
	}
}

func wantRead(t *testing.T, c *Conn, size int, want string, wantErr error) {
	t.Helper()
	b := make([]byte, size)
	n, err := c.Read(b)
	if string(b[:n]) != want || !errors.Is(err, wantErr) || wantErr == io.EOF && err != io.EOF {
		t.Errorf("Read of %d bytes = %.20q, %v; want %.20q, %v", size, b[:n], err, want, wantErr)
	}
}

func TestShortBufferLosesNothingOfAMessage(t *testing.T) {
	directions(t, func(t *testing.T, from, to *Conn) {
		send(t, from, "abcdefg", "next")
		wantRead(t, to, 3, "abc", ErrMoreData)
		wantRead(t, to, 3, "def", ErrMoreData)
		wantRead(t, to, 3, "g", nil)
		wantRead(t, to, 3, "nex", ErrMoreData)
		wantRead(t, to, 1, "t", nil)
		send(t, from, "exact")
		wantRead(t, to, 5, "exact", nil)
		send(t, from, "after")
		wantRead(t, to, 64, "after", nil)
	})
}

func TestEmptyMessageIsNoEnd(t *testing.T) {
	directions(t, func(t *testing.T, from, to *Conn) {
		send(t, from, "", "x", "", "")
		wantRead(t, to, 8, "", nil)
		wantRead(t, to, 8, "x", nil)
		wantRead(t, to, 8, "", nil)
		wantRead(t, to, 8, "", nil)
		if err := from.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		wantRead(t, to, 8, "", io.EOF)
		wantRead(t, to, 8, "", io.EOF)
	})
}

func TestPlainClientsEmptyMessageIsNoEnd(t *testing.T) {
	l := listenAt(t, &ListenConfig{Message: true})
	client := dialRaw(t, l)
	for _, m := range []string{"", "x", ""} {
		must(unix.Sendto(client.pipe, []byte(m), 0, nil))
	}
	c := acceptFrom(t, l)
	wantRead(t, c, 8, "", nil)
	wantRead(t, c, 8, "x", nil)
	wantRead(t, c, 8, "", nil)
	client.close()
	wantRead(t, c, 8, "", io.EOF)
}

func TestEndComesAfterTheRestOfAMessage(t *testing.T) {
	directions(t, func(t *testing.T, from, to *Conn) {
		send(t, from, "abc")
		if err := from.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		wantRead(t, to, 2, "ab", ErrMoreData)
		wantRead(t, to, 2, "c", nil)
		wantRead(t, to, 2, "", io.EOF)
	})
}

func TestLongMessages(t *testing.T) {
	directions(t, func(t *testing.T, from, to *Conn) {
		// The kernel bounds messages by the send buffer.
		control(from, func(fd int) { must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4*MaxMessage)) })
		var room int
		control(from, func(fd int) { room = must1(unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)) })
		if room < MaxMessage+64<<10 {
			t.Skipf("net.core.wmem_max allows messages of %d bytes only", room)
		}
		longest := bytes.Repeat([]byte("0123456789abcdef"), MaxMessage/16)
		done := make(chan error, 1)
		go func() {
			_, err := from.Write(longest)
			done <- err
		}()
		b := make([]byte, 2*MaxMessage)
		n, err := to.Read(b)
		if err != nil || !bytes.Equal(b[:n], longest) {
			t.Errorf("of the longest message %d bytes came, %v", n, err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := from.Write(make([]byte, MaxMessage+17))
			done <- err
		}()
		n, err = to.Read(b[:16])
		if n != 0 || !errors.Is(err, ErrMessageTooLong) {
			t.Errorf("of a longer one: %d bytes, %v, want an error", n, err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		send(t, from, "next")
		wantRead(t, to, 8, "next", nil)
	})
}

func TestReadOfNothingTakesNothing(t *testing.T) {
	directions(t, func(t *testing.T, from, to *Conn) {
		send(t, from, "x")
		wantRead(t, to, 0, "", nil)
		wantRead(t, to, 1, "x", nil)
	})
}
