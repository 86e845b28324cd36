package guise

import (
	"context"
	"fmt"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/hostile"
	"github.com/guise-project/guise/internal/leftover"
)

// TestOptionsOfASocketThatTheClientKeptBringNothing: whoever has a copy of the control channel's far end can change its options at any time,
// also while the server receives. What is received then stays what it is, or ends the connection of that client; and no message leaves a
// descriptor behind.
func TestOptionsOfASocketThatTheClientKeptBringNothing(t *testing.T) {
	needRoot(t, "the client has ids of its own")
	for _, option := range hostile.Options() {
		t.Run(option.Name, func(t *testing.T) {
			l := listenAt(t, nil)
			leftover.ByThis(t, func() {
				for _, when := range []string{"before the hello", "after it"} {
					client := dialRaw(t, l)
					copied := must1(unix.FcntlInt(uintptr(client.far), unix.F_DUPFD_CLOEXEC, 0))
					if when == "before the hello" {
						must(option.Set(copied))
					}
					// A filter may keep the messages away.
					said := unix.Sendmsg(client.near, []byte(rawHello(0, rawDynamic)), nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
					client.preface("G", client.far)
					client.write("1")
					server := acceptFrom(t, l)
					inTime(t, "WaitClient", func() { _ = server.WaitClient(context.Background()) })
					if when == "after it" {
						must(said)
						must(option.Set(copied))
					}
					for i := range uint64(50) {
						_ = unix.Sendmsg(client.near, []byte(rawLost(i+1, 77)), nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
					}
					_ = unix.Shutdown(client.pipe, unix.SHUT_WR)
					inTime(t, "Read", func() { _, _ = io.ReadAll(server) })
					inTime(t, "RunAsClient", func() { _ = server.RunAsClient(func(*Scope) error { return nil }) })
					client.close()
					unix.Close(copied)
					inTime(t, "Close", func() { server.Close() })
				}
			})
		})
	}
}

// TestPidfdsThatComeUninvitedAreClosed: the kernel adds one to each message while the option is on.
func TestPidfdsThatComeUninvitedAreClosed(t *testing.T) {
	l := listenAt(t, nil)
	client := dialRaw(t, l)
	copied := must1(unix.FcntlInt(uintptr(client.far), unix.F_DUPFD_CLOEXEC, 0))
	defer unix.Close(copied)
	must(unix.SetsockoptInt(copied, unix.SOL_SOCKET, unix.SO_PASSPIDFD, 1))
	client.open()
	server := acceptFrom(t, l)
	must(server.WaitClient(context.Background()))
	before := leftover.Descriptors()
	const messages = 200
	for i := range uint64(messages) {
		client.say(rawLost(i+1, 77))
		if _, err := server.Client(); err != nil { // takes in what was announced
			t.Fatal(err)
		}
	}
	discard.Wait()
	if after := leftover.Descriptors(); len(after) > len(before) {
		t.Errorf("%d messages left %d descriptors", messages, len(after)-len(before))
	}
}

// TestHellosWithPidfdsLeaveNoDescriptors: one for each connection would do to fill the table.
func TestHellosWithPidfdsLeaveNoDescriptors(t *testing.T) {
	l := listenAt(t, nil)
	leftover.ByThis(t, func() {
		for range 100 {
			client := dialRaw(t, l)
			copied := must1(unix.FcntlInt(uintptr(client.far), unix.F_DUPFD_CLOEXEC, 0))
			must(unix.SetsockoptInt(copied, unix.SOL_SOCKET, unix.SO_PASSPIDFD, 1))
			client.say(rawHello(0, rawStatic))
			client.preface("G", client.far)
			server := acceptFrom(t, l)
			if err := server.WaitClient(context.Background()); err != nil {
				t.Fatal(fmt.Errorf("an option of the client's own ends its connection: %w", err))
			}
			server.Close()
			client.close()
			unix.Close(copied)
		}
	})
}
