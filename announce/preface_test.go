package announce

import (
	"errors"
	"io"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/without"
	"github.com/guise-project/guise/token"
)

// pair returns a socketpair that is closed when the test ends.
func pair(t *testing.T, kind int) (a, b int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

func sendMessage(t *testing.T, fd int, data string, fds ...int) {
	t.Helper()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(fd, []byte(data), rights, nil, unix.MSG_NOSIGNAL); err != nil {
		t.Fatalf("sendmsg: %v", err)
	}
}

func peekFirst(t *testing.T, pipe int) First {
	t.Helper()
	first, err := PeekFirst(pipe)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

func TestPeekFirstTellsPrefaceFromDataAndConsumesNeither(t *testing.T) {
	for _, kind := range []struct {
		name string
		kind int
	}{{"stream", unix.SOCK_STREAM}, {"messages", unix.SOCK_SEQPACKET}} {
		t.Run(kind.name, func(t *testing.T) {
			server, client := pair(t, kind.kind)
			if got := peekFirst(t, server); got != Nothing {
				t.Errorf("of a silent client: %v, want Nothing", got)
			}
			sendMessage(t, client, "data")
			for range 2 {
				if got := peekFirst(t, server); got != Plain {
					t.Errorf("of a plain client: %v, want Plain", got)
				}
			}
			var b [8]byte
			if n, err := unix.Read(server, b[:]); err != nil || string(b[:n]) != "data" {
				t.Errorf("then %q, %v was there to read", b[:n], err)
			}
			far, _ := pair(t, unix.SOCK_SEQPACKET)
			sendMessage(t, client, "G", far)
			leftover.ByThis(t, func() {
				for range 2 {
					if got := peekFirst(t, server); got != Preface {
						t.Errorf("of a byte with a descriptor: %v, want Preface", got)
					}
				}
			})
			if r, err := ReceivePreface(server); err != nil {
				t.Error(err)
			} else {
				r.Close()
			}
			unix.Shutdown(client, unix.SHUT_WR)
			if got := peekFirst(t, server); got != Plain {
				t.Errorf("at the end: %v, want Plain", got)
			}
		})
	}
}

func TestPrefaceThatIsNoneEndsTheConnectionAndLeaksNothing(t *testing.T) {
	channel := func(t *testing.T) int { far, _ := pair(t, unix.SOCK_SEQPACKET); return far }
	open := func(path string, flags int) func(t *testing.T) int {
		return func(t *testing.T) int {
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			return fd
		}
	}
	socketpair := func(kind int) func(t *testing.T) int {
		return func(t *testing.T) int { a, _ := pair(t, kind); return a }
	}
	tests := []struct {
		name   string
		data   string
		count  int
		make   func(t *testing.T) int
		target error
	}{
		{"wrong byte", "H", 1, channel, ErrProtocol},
		{"two bytes", "GG", 1, channel, nil}, // what follows is data on a stream
		{"two descriptors", "G", 2, channel, ErrNoDescriptors},
		{"253 descriptors", "G", 253, channel, ErrNoDescriptors},
		{"file", "G", 1, open("/dev/null", unix.O_RDONLY), ErrProtocol},
		{"directory", "G", 1, open("/", unix.O_RDONLY|unix.O_DIRECTORY), ErrProtocol},
		{"path only", "G", 1, open("/", unix.O_PATH), ErrProtocol},
		{"pipe", "G", 1, func(t *testing.T) int {
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
			return p[0]
		}, ErrProtocol},
		{"TCP socket", "G", 1, func(t *testing.T) int { return socket(t, unix.AF_INET, unix.SOCK_STREAM) }, ErrProtocol},
		{"stream socketpair", "G", 1, socketpair(unix.SOCK_STREAM), ErrProtocol},
		{"datagram socketpair", "G", 1, socketpair(unix.SOCK_DGRAM), ErrProtocol},
		{"unconnected socket", "G", 1, func(t *testing.T) int { return socket(t, unix.AF_UNIX, unix.SOCK_SEQPACKET) }, ErrProtocol},
		{"socket with a name", "G", 1, named(abstract("guise-test-own")), ErrProtocol},
		{"socket with a name that begins with NUL", "G", 1, named("\x00\x00"), ErrProtocol},
		{"socket whose peer has a name", "G", 1, peerNamed(abstract("guise-test-peer")), ErrProtocol},
		{"socket whose peer has a name that begins with NUL", "G", 1, peerNamed("\x00\x00"), ErrProtocol},
		{"accepted connection", "G", 1, accepted(abstract("guise-test-accepted")), ErrProtocol},
		{"connected socket", "G", 1, connected(abstract("guise-test-connected")), ErrProtocol},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server, client := pair(t, unix.SOCK_STREAM)
			fds := make([]int, test.count)
			fd := test.make(t)
			for i := range fds {
				fds[i] = fd
			}
			sendMessage(t, client, test.data, fds...)
			leftover.ByThis(t, func() {
				if got := peekFirst(t, server); got != Preface {
					t.Fatalf("PeekFirst = %v, want Preface", got)
				}
				r, err := ReceivePreface(server)
				if err == nil {
					r.Close()
				}
				if !errors.Is(err, test.target) {
					t.Errorf("ReceivePreface: %v, want %v", err, test.target)
				}
			})
		})
	}
}

func TestHelloComesFirstOnceAndPlain(t *testing.T) {
	hello, context := string(Hello{Tracking: Dynamic}.encode()), string(Context{Sequence: 1}.encode())
	type message struct {
		data string
		fds  int
	}
	tests := []struct {
		name   string
		queue  []message
		target error
		told   Refusal
	}{
		{"a hello", []message{{hello, 0}}, nil, 0},
		{"nothing", nil, ErrProtocol, RefusedProtocol},
		{"an empty message", []message{{"", 0}}, ErrProtocol, RefusedProtocol},
		{"another version", []message{{"GU\x02\x01whatever it has", 0}}, ErrProtocol, RefusedVersion},
		{"a hello with a descriptor", []message{{hello, 1}}, ErrProtocol, RefusedProtocol},
		{"a hello with two descriptors", []message{{hello, 2}}, ErrNoDescriptors, RefusedBusy},
		{"a context", []message{{context, 1}, {hello, 0}}, ErrProtocol, RefusedProtocol},
		{"a server's message", []message{{string(InForce{}.encode()), 0}}, ErrProtocol, RefusedProtocol},
		{"an oversized hello", []message{{hello + string(make([]byte, 1<<15)), 0}}, ErrProtocol, RefusedProtocol},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server, client := pair(t, unix.SOCK_STREAM)
			near, far := pair(t, unix.SOCK_SEQPACKET)
			for _, m := range test.queue {
				fds := make([]int, m.fds)
				for i := range fds {
					fds[i] = far
				}
				sendMessage(t, near, m.data, fds...)
			}
			sendMessage(t, client, "G", far)
			leftover.ByThis(t, func() {
				r, err := ReceivePreface(server)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				h, _, err := r.Hello()
				if !errors.Is(err, test.target) || err == nil && h.Tracking != Dynamic {
					t.Errorf("Hello = %+v, %v, want error %v", h, err, test.target)
				}
				if err != nil {
					if got := RefusalFor(err); got != test.told {
						t.Errorf("the client would be told %d, want %d", got, test.told)
					}
				}
			})
		})
	}
}

func TestRepeatedHelloEndsTheConnection(t *testing.T) {
	r, near := receiver(t)
	sendMessage(t, near, string(Hello{}.encode()))
	if a, err := r.Next(); !errors.Is(err, ErrProtocol) || a != nil {
		t.Errorf("Next = %+v, %v, want ErrProtocol", a, err)
	}
}

// receiver returns the server's end of a control channel whose hello has been received, and the client's.
func receiver(t *testing.T) (r *Receiver, near int) {
	t.Helper()
	server, client := pair(t, unix.SOCK_STREAM)
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	near = p[0]
	t.Cleanup(func() { unix.Close(near) })
	sendMessage(t, near, string(Hello{}.encode()))
	sendMessage(t, client, "G", p[1])
	unix.Close(p[1]) // or the channel would not end
	if r, err = ReceivePreface(server); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	if _, _, err := r.Hello(); err != nil {
		t.Fatal(err)
	}
	if err := r.Follow(server); err != nil {
		if errors.Is(err, ErrCannotProve) {
			t.Skip("this kernel can't prove contexts: ", err)
		}
		t.Fatal(err)
	}
	return r, near
}

func TestNextIsTheEndOnceTheClientHasClosed(t *testing.T) {
	r, near := receiver(t)
	if a, err := r.Next(); a != nil || err != nil {
		t.Errorf("Next of a silent client = %v, %v, want nothing", a, err)
	}
	unix.Shutdown(near, unix.SHUT_RDWR)
	if a, err := r.Next(); err != io.EOF || a != nil {
		t.Errorf("Next = %+v, %v, want io.EOF", a, err)
	}
}

func TestEmptyControlMessageIsNoEnd(t *testing.T) {
	r, near := receiver(t)
	sendMessage(t, near, "")
	if a, err := r.Next(); !errors.Is(err, ErrProtocol) {
		t.Errorf("Next = %+v, %v, want ErrProtocol", a, err)
	}
}

func TestRefusePrefaceTellsTheClientWhy(t *testing.T) {
	server, client := pair(t, unix.SOCK_STREAM)
	near, far := pair(t, unix.SOCK_SEQPACKET)
	sendMessage(t, client, "G", far)
	leftover.ByThis(t, func() { RefusePreface(server, RefusedAccess) })
	if m, err := receiveAnswer(near, 0); err != nil || m != RefusedAccess {
		t.Errorf("the client hears %v, %v", m, err)
	}
	sendMessage(t, client, "data")
	RefusePreface(server, RefusedAccess)
	if peekFirst(t, server) != Plain {
		t.Error("a plain client's data was consumed")
	}
}

func TestClientHearsOnlyAServersMessages(t *testing.T) {
	tests := []struct {
		name string
		data string
		want any
		err  error
	}{
		{"in force", string(InForce{token.Impersonation, Dynamic, false}.encode()), InForce{token.Impersonation, Dynamic, false}, nil},
		{"refusal", string(RefusedBusy.encode()), RefusedBusy, nil},
		{"hello", string(Hello{}.encode()), nil, ErrProtocol},
		{"context", string(Context{}.encode()), nil, ErrProtocol},
		{"text", "Permission denied", nil, ErrProtocol},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, b := pair(t, unix.SOCK_SEQPACKET)
			if m, err := receiveAnswer(b, 0); m != nil || err != nil {
				t.Errorf("before anything came: %v, %v", m, err)
			}
			sendMessage(t, a, test.data)
			if m, err := receiveAnswer(b, 0); m != test.want || !errors.Is(err, test.err) {
				t.Errorf("the client hears %v, %v, want %v, %v", m, err, test.want, test.err)
			}
			unix.Shutdown(a, unix.SHUT_RDWR)
			if m, err := receiveAnswer(b, 0); m != nil || err != io.EOF {
				t.Errorf("at the end: %v, %v, want io.EOF", m, err)
			}
		})
	}
}

func TestServersDescriptorsAreNotKeptByAClient(t *testing.T) {
	a, b := pair(t, unix.SOCK_SEQPACKET)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sendMessage(t, a, string(InForce{}.encode()), int(f.Fd()))
	leftover.ByThis(t, func() {
		if m, err := receiveAnswer(b, 0); err == nil {
			t.Logf("the message is taken for %v", m)
		}
	})
}

func TestPeekFirstThatFailsFindsNoPlainClient(t *testing.T) {
	server, client := pair(t, unix.SOCK_STREAM)
	sendMessage(t, client, "data")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread, which can't receive any more, ends with the goroutine
		if err := without.Call(unix.SYS_RECVMSG, unix.ENOMEM); err != nil {
			t.Error(err)
			return
		}
		if first, err := PeekFirst(server); first != Nothing || !errors.Is(err, unix.ENOMEM) {
			t.Errorf("where recvmsg fails PeekFirst finds %v, %v, want %v", first, err, unix.ENOMEM)
		}
	}()
	<-done
}
