package guise

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/hostile"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/internal/unixsocket"
)

// TestFilesOnTheClientsFUSEHoldUpNobodyElse: each close(2) of them waits for the client, who never answers, and that client is refused more
// once it has many waiting.
func TestFilesOnTheClientsFUSEHoldUpNobodyElse(t *testing.T) {
	needRoot(t, "it mounts a file system, and the clients have ids of their own")
	ways := []struct {
		name string
		send func(c *rawClient, fds ...int)
	}{
		{"in the preface", func(c *rawClient, fds ...int) { c.preface("G", fds...) }},
		{"with a hello", func(c *rawClient, fds ...int) { c.say(rawHello(0, 0), fds...); c.preface("G", c.far) }},
		{"with a context", func(c *rawClient, fds ...int) {
			c.open()
			must(c.sayAs(c.claim(), rawContext(0, 1, 1), fds...))
			c.write("2")
		}},
		{"with data", func(c *rawClient, fds ...int) { c.write("x"); c.preface("y", fds...) }},
		{"as the control channel", func(c *rawClient, fds ...int) { c.preface("G", fds[0]) }},
		{"in the queue of the control channel", func(c *rawClient, fds ...int) {
			c.say(rawHello(0, rawStatic))
			c.say("", fds...)
			c.preface("G", c.far)
		}},
	}
	bothModes(t, func(t *testing.T, config ListenConfig) {
		for _, way := range ways {
			t.Run(way.name, func(t *testing.T) {
				l := listenAt(t, &config)
				leftover.ByThis(t, func() {
					dir := testdir.Open(t, 0o755)
					files, err := hostile.MountFUSE(dir, hostile.Flush)
					if err != nil {
						t.Skip(err)
					}
					fd := must1(unix.Open(filepath.Join(dir, "file"), unix.O_RDONLY|unix.O_CLOEXEC, 0))
					for range 4 {
						var client *rawClient
						asUID(61001, func() {
							client = dialRaw(t, l)
							way.send(client, slices.Repeat([]int{fd}, unixsocket.MostDescriptors)...)
						})
						server, refused := acceptOrRefuse(t, l, 61002)
						if refused {
							client.close()
							continue
						}
						inTime(t, "WaitClient", func() { _ = server.WaitClient(context.Background()) })
						_ = unix.Shutdown(client.pipe, unix.SHUT_WR)
						inTime(t, "Read", func() { _, _ = io.ReadAll(server) })
						client.close()
						inTime(t, "Close", func() { server.Close() })
					}
					if err := files.Close(); err != nil {
						t.Error(err)
					}
					unix.Close(fd)
					inTime(t, "closing what the client sent", discard.Wait)
					asUID(61001, func() {
						client := dialRaw(t, l)
						defer client.close()
						client.write("x")
						server := acceptFrom(t, l)
						if err := server.WaitClient(context.Background()); err != nil {
							t.Errorf("a client of the same user, once everything is closed: %v", err)
						}
						server.Close()
					})
				})
			})
		}
	})
}

// acceptOrRefuse accepts a client that has connected, and after it one of other, a uid, which has to be served. It reports whether the first
// was not let in.
func acceptOrRefuse(t *testing.T, l *Listener, other uint32) (first *Conn, refused bool) {
	t.Helper()
	var client *rawClient
	asUID(other, func() {
		client = dialRaw(t, l)
		client.write("x")
	})
	defer client.close()
	first = acceptFrom(t, l)
	last := first
	if peerUID(t, first) != other {
		last = acceptFrom(t, l)
	} else {
		first, refused = nil, true
	}
	var b [1]byte
	inTime(t, "Read of another client", func() {
		if n, err := last.Read(b[:]); n != 1 {
			t.Errorf("another client: read %d bytes, %v", n, err)
		}
	})
	inTime(t, "RunAsClient of another client", func() {
		err := last.RunAsClient(func(*Scope) error {
			if uid := os.Geteuid(); uint32(uid) != other {
				return errors.New("the scope has another uid")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	last.Close()
	return first, refused
}
