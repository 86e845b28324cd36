package guise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"github.com/guise-project/guise/internal/testdir"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/features"
	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/hostile"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/unixsocket"
	"github.com/guise-project/guise/internal/without"
	"github.com/guise-project/guise/token"
)

// dialRaw connects to l and returns a client in this process; its descriptors are the test's.
func dialRaw(t *testing.T, l *Listener) *rawClient {
	t.Helper()
	c := &rawClient{pipe: rawConnect(l.Addr().String())}
	c.near, c.far = rawPair(unix.SOCK_SEQPACKET)
	t.Cleanup(c.close)
	return c
}

// close closes what is still open.
func (c *rawClient) close() {
	for _, fd := range []*int{&c.pipe, &c.near, &c.far} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
	for _, fd := range c.kept {
		unix.Close(fd)
	}
	c.kept = nil
}

func bothModes(t *testing.T, f func(t *testing.T, config ListenConfig)) {
	t.Run("bytes", func(t *testing.T) { f(t, ListenConfig{}) })
	t.Run("messages", func(t *testing.T) { f(t, ListenConfig{Message: true}) })
}

func TestSilentClientsBlockNobody(t *testing.T) {
	bothModes(t, func(t *testing.T, config ListenConfig) {
		l := listenAt(t, &config)
		leftover.ByThis(t, func() {
			var silent []*Conn
			for range 50 {
				c := dialRaw(t, l)
				defer c.close()
				s := acceptFrom(t, l)
				defer s.Close()
				silent = append(silent, s)
			}
			client := dialRaw(t, l)
			defer client.close()
			client.write("hello")
			c := acceptFrom(t, l)
			defer c.Close()
			var b [8]byte
			if n, err := c.Read(b[:]); err != nil || string(b[:n]) != "hello" {
				t.Errorf("Read = %q, %v", b[:n], err)
			}
			for _, s := range silent {
				err := s.RunAsClient(func(*Scope) error { t.Error("a function ran"); return nil })
				if !errors.Is(err, ErrNoDataRead) {
					t.Fatalf("RunAsClient: %v, want ErrNoDataRead", err)
				}
				if who, err := s.Client(); !errors.Is(err, ErrNoDataRead) {
					t.Fatalf("Client = %v, %v, want ErrNoDataRead", who, err)
				}
				if q := s.QoS(); q != (QoS{}) {
					t.Fatalf("QoS = %+v", q)
				}
			}
		})
	})
}

func TestWaitClientConsumesNothingAndEndsWithItsContext(t *testing.T) {
	bothModes(t, func(t *testing.T, config ListenConfig) {
		l := listenAt(t, &config)
		client := dialRaw(t, l)
		c := acceptFrom(t, l)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := c.WaitClient(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("WaitClient: %v, want the context's error", err)
		}
		client.write("hello")
		if err := c.WaitClient(context.Background()); err != nil {
			t.Errorf("WaitClient: %v", err)
		}
		if err := c.RunAsClient(func(*Scope) error { return nil }); err != nil {
			t.Errorf("RunAsClient: %v", err)
		}
		var b [8]byte
		if n, err := c.Read(b[:]); err != nil || string(b[:n]) != "hello" {
			t.Errorf("Read = %q, %v", b[:n], err)
		}
	})
}

func TestPlainClientsEndOfFileIsEnoughToActForIt(t *testing.T) {
	bothModes(t, func(t *testing.T, config ListenConfig) {
		for _, how := range []string{"half-closed", "closed"} {
			t.Run(how, func(t *testing.T) {
				l := listenAt(t, &config)
				client := dialRaw(t, l)
				if how == "closed" {
					client.close()
				} else if err := unix.Shutdown(client.pipe, unix.SHUT_WR); err != nil {
					t.Fatal(err)
				}
				c := acceptFrom(t, l)
				ran := false
				if err := c.RunAsClient(func(*Scope) error { ran = true; return nil }); err != nil || !ran {
					t.Errorf("RunAsClient: %v, ran: %v", err, ran)
				}
				if n, err := c.Read(make([]byte, 8)); err != io.EOF {
					t.Errorf("Read = %d, %v, want io.EOF", n, err)
				}
				if q := c.QoS(); q != (QoS{Impersonation, Static, false}) {
					t.Errorf("QoS = %+v", q)
				}
				if how == "half-closed" {
					if _, err := c.Write([]byte("answer")); err != nil {
						t.Errorf("Write: %v", err)
					}
				}
			})
		}
	})
}

// TestClientThatDiesAnywhereLeavesNothing lets a client die after each of the steps by which a connection is opened and used.
func TestClientThatDiesAnywhereLeavesNothing(t *testing.T) {
	steps := []struct {
		name string
		do   func(c *rawClient)
		read string // what the server still reads
		lost bool
	}{
		{"connected", func(c *rawClient) {}, "", false},
		{"preface without a hello", func(c *rawClient) { c.preface("G", c.far) }, "", true},
		{"preface", func(c *rawClient) { c.say(rawHello(0, rawDynamic)); c.preface("G", c.far) }, "", false},
		{"static preface", func(c *rawClient) { c.say(rawHello(0, rawStatic)); c.preface("G", c.far) }, "", false},
		{"data", func(c *rawClient) { c.open() }, "1", false},
		{"announced data that never came", func(c *rawClient) {
			c.open()
			must(c.announceAt(1, 100, c.token(), c.claim()))
		}, "1", false},
	}
	bothModes(t, func(t *testing.T, config ListenConfig) {
		for _, step := range steps {
			t.Run(step.name, func(t *testing.T) {
				l := listenAt(t, &config)
				leftover.ByThis(t, func() {
					client := dialRaw(t, l)
					step.do(client)
					client.close()
					c := acceptFrom(t, l)
					defer c.Close()
					var got bytes.Buffer
					_, err := io.Copy(&got, struct{ io.Reader }{c})
					if step.lost != errors.Is(err, ErrContextLost) || !step.lost && err != nil {
						t.Errorf("reading to the end: %v", err)
					}
					if got.String() != step.read {
						t.Errorf("read %q, want %q", got.String(), step.read)
					}
					err = c.RunAsClient(func(*Scope) error { return nil })
					if step.lost != errors.Is(err, ErrContextLost) || !step.lost && err != nil {
						t.Errorf("RunAsClient: %v", err)
					}
				})
			})
		}
	})
}

// manyDescriptors writes "y" with as many descriptors as one message can have.
func manyDescriptors(c *rawClient) {
	fds := make([]int, 253)
	for i := range fds {
		fds[i] = c.near
	}
	must(unix.Sendmsg(c.pipe, []byte("y"), unix.UnixRights(fds...), nil, 0))
}

func TestDescriptorsThatComeWithDataAreNotKept(t *testing.T) {
	bothModes(t, func(t *testing.T, config ListenConfig) {
		t.Run("before the server has looked", func(t *testing.T) {
			l := listenAt(t, &config)
			leftover.ByThis(t, func() {
				client := dialRaw(t, l)
				defer client.close()
				client.write("x")
				for range 4 {
					manyDescriptors(client)
				}
				c := acceptFrom(t, l)
				defer c.Close()
				b := make([]byte, 5)
				// On a stream the kernel does not say which byte the descriptors are with, so that they may be a preface's.
				if _, err := io.ReadFull(c, b); string(b) != "xyyyy" && (config.Message || !errors.Is(err, ErrContextLost)) {
					t.Errorf("read %q, %v", b, err)
				}
			})
		})
		t.Run("after", func(t *testing.T) {
			if err := features.PassRights.Err(); err != nil {
				t.Skip(err)
			}
			l := listenAt(t, &config)
			client := dialRaw(t, l)
			client.write("x")
			c := acceptFrom(t, l)
			if err := c.WaitClient(context.Background()); err != nil {
				t.Fatal(err)
			}
			if err := unix.Sendmsg(client.pipe, []byte("y"), unix.UnixRights(client.near), nil, 0); err != unix.EPERM {
				t.Errorf("sending a descriptor to a server that wants none: %v, want EPERM", err)
			}
		})
	})
}

var _ = addRole("no-passrights", func() {
	must(without.SocketOptions(unix.SO_PASSRIGHTS))
	l := must1(Listen(filepath.Join(os.Getenv("GUISE_TEST_DIR"), "pipe"), &ListenConfig{Message: os.Getenv("GUISE_TEST_MESSAGE") != ""}))
	defer l.Close()
	must(os.Setenv("GUISE_TEST_PATH", l.Addr().String()))
	client := newRawClient()
	client.write("x")
	server := must1(l.AcceptPipe())
	must(server.WaitClient(context.Background()))
	before := len(leftover.Descriptors())
	for range 4 {
		manyDescriptors(client)
	}
	b := make([]byte, 5)
	_, err := io.ReadFull(server, b)
	discard.Wait()
	fmt.Println(string(b), err, len(leftover.Descriptors())-before)
})

func TestWithoutSO_PASSRIGHTSDescriptorsAreDroppedOnTheWay(t *testing.T) {
	bothModes(t, func(t *testing.T, config ListenConfig) {
		env := []string{"GUISE_TEST_DIR=" + testdir.Open(t, 0o755)}
		if config.Message {
			env = append(env, "GUISE_TEST_MESSAGE=1")
		}
		if got := startRaw(t, "no-passrights", nil, env).end(); got != "xyyyy <nil> 0" {
			t.Errorf("it says %s", got)
		}
	})
}

// lingering returns a TCP socket whose close blocks until release is called.
func lingering(t *testing.T) (fd int, release func()) {
	t.Helper()
	fd, release, err := hostile.Lingering()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return fd, release
}

// TestWhatLingersNeverBlocksTheServer hands the server sockets whose close(2) waits for an hour, wherever one can be put, one and as many as a
// message takes, on sockets as they are and on those that whoever has a copy has changed.
func TestWhatLingersNeverBlocksTheServer(t *testing.T) {
	wait := func(lost bool) func(*testing.T, *Conn) {
		return func(t *testing.T, c *Conn) {
			if err := c.WaitClient(context.Background()); errors.Is(err, ErrContextLost) != lost {
				t.Errorf("WaitClient: %v", err)
			}
		}
	}
	readAll := func(t *testing.T, c *Conn) {
		var err error
		for err == nil {
			_, err = c.Read(make([]byte, 1))
		}
	}
	const some = 3 // more than a preface or a context has
	tests := []struct {
		name string
		// What the client does with so many descriptors of what lingers.
		client func(c *rawClient, fds ...int)
		server func(t *testing.T, c *Conn)
	}{
		{"in the preface, not looked at", func(c *rawClient, fds ...int) { c.preface("G", fds...) }, func(*testing.T, *Conn) {}},
		{"in the preface", func(c *rawClient, fds ...int) { c.preface("G", fds...) }, wait(true)},
		{"in what is no preface", func(c *rawClient, fds ...int) { c.preface("H", fds...) }, wait(true)},
		{"behind data", func(c *rawClient, fds ...int) { c.write("x"); c.preface("y", fds...) },
			func(t *testing.T, c *Conn) { c.WaitClient(context.Background()) }},
		{"behind data, which is read", func(c *rawClient, fds ...int) { c.write("x"); c.preface("y", fds...) }, readAll},
		{"with the hello", func(c *rawClient, fds ...int) { c.say(rawHello(0, 0), fds...); c.preface("G", c.far) }, wait(true)},
		{"behind the hello, static", func(c *rawClient, fds ...int) {
			c.say(rawHello(0, rawStatic))
			c.say(rawContext(0, 1, 1), fds...)
			c.preface("G", c.far)
		}, wait(false)},
		{"behind the hello, dynamic", func(c *rawClient, fds ...int) {
			c.say(rawHello(0, rawDynamic))
			c.say(rawContext(0, 1, 1), fds...)
			c.preface("G", c.far)
		}, func(t *testing.T, c *Conn) { c.WaitClient(context.Background()) }}, // the watching goroutine may be the first to look
		{"behind the hello, not looked at", func(c *rawClient, fds ...int) {
			c.say(rawHello(0, rawDynamic))
			c.say(rawContext(0, 1, 1), fds...)
			c.preface("G", c.far)
		}, func(*testing.T, *Conn) {}},
		{"behind empty messages on the channel", func(c *rawClient, fds ...int) {
			c.say(rawHello(0, rawStatic))
			for range 20 {
				c.say("")
			}
			c.say("", fds...)
			c.preface("G", c.far)
		}, wait(false)},
		{"as a token socket", func(c *rawClient, fds ...int) {
			c.open()
			must(c.sayAs(c.claim(), rawContext(0, 1, 1), fds...))
			c.write("2")
		}, readAll},
		{"in the queue of a token socket", func(c *rawClient, fds ...int) {
			a, b := rawPair(unix.SOCK_SEQPACKET)
			c.setOptions(b)
			must(unix.Sendmsg(a, []byte("x"), unix.UnixRights(fds...), nil, 0))
			c.open()
			must(c.announce(1, b, c.claim()))
			c.write("2")
			unix.Close(a)
			unix.Close(b)
		}, readAll},
		{"in the queue of what is no control channel", func(c *rawClient, fds ...int) {
			a, b := rawPair(unix.SOCK_STREAM)
			c.setOptions(b)
			must(unix.Sendmsg(a, []byte("x"), unix.UnixRights(fds...), nil, 0))
			c.preface("G", b)
			unix.Close(a)
			unix.Close(b)
		}, wait(true)},
	}
	options := []struct {
		name string
		set  func(fd int) error
	}{{"as it is", nil}}
	for _, o := range hostile.Options() {
		switch o.Name {
		case "SO_PEEK_OFF", "SO_PASSCRED off", "SO_PASSPIDFD", "SO_TIMESTAMP", "SO_RCVLOWAT", "O_NONBLOCK off":
			options = append(options, struct {
				name string
				set  func(fd int) error
			}{o.Name, o.Set})
		}
	}
	bothModes(t, func(t *testing.T, config ListenConfig) {
		for _, test := range tests {
			for _, copies := range []int{1, some, unixsocket.MostDescriptors} {
				for _, option := range options {
					if option.set != nil && copies == some { // which shows nothing new
						continue
					}
					t.Run(fmt.Sprintf("%s/%d of them/%s", test.name, copies, option.name), func(t *testing.T) {
						l := listenAt(t, &config)
						leftover.ByThis(t, func() {
							fd, release := lingering(t)
							defer release()
							client := dialRaw(t, l)
							defer client.close()
							if option.set != nil {
								client.options = option.set
								client.setOptions(client.far)
							}
							test.client(client, slices.Repeat([]int{fd}, copies)...)
							unix.Close(fd) // those in flight are left
							c := acceptFrom(t, l)
							client.close()
							inTime(t, "the server", func() { test.server(t, c) })
							inTime(t, "Close", func() { c.Close() })
						})
					})
				}
			}
		}
		t.Run("of clients that are not let in", func(t *testing.T) {
			var asked atomic.Int32
			const unwelcome = 40
			config.Allow = func(*token.Token) error {
				if asked.Add(1) <= unwelcome {
					return errors.New("not you")
				}
				return nil
			}
			l := listenAt(t, &config)
			leftover.ByThis(t, func() {
				fd, release := lingering(t)
				defer release()
				for range unwelcome {
					client := dialRaw(t, l)
					client.preface("G", fd, fd, fd)
					client.close()
				}
				unix.Close(fd)
				welcome := dialRaw(t, l)
				defer welcome.close()
				acceptFrom(t, l).Close()
			})
		})
		t.Run("of clients that were never accepted", func(t *testing.T) {
			config.Allow = nil
			l := listenAt(t, &config)
			leftover.ByThis(t, func() {
				fd, release := lingering(t)
				defer release()
				for range 10 {
					client := dialRaw(t, l)
					client.preface("G", fd)
					client.close()
				}
				unix.Close(fd)
				inTime(t, "the listener's Close", func() { l.Close() })
			})
		})
	})
}

// setOptions sets what this client sets on sockets that it keeps a copy of.
func (c *rawClient) setOptions(fd int) {
	if c.options != nil {
		must(c.options(fd))
	}
}

// TestWhatLingersIsClosedForGood: also that of clients which have ended long before their sockets would, and it takes no threads meanwhile.
func TestWhatLingersIsClosedForGood(t *testing.T) {
	threads := func() int {
		tasks, err := os.ReadDir("/proc/self/task")
		must(err)
		return len(tasks)
	}
	const many = 200
	l := listenAt(t, nil)
	leftover.ByThis(t, func() {
		before := threads()
		descriptors := len(leftover.Descriptors())
		for range many {
			fd, release := lingering(t)
			defer release() // only then would a socket that lingers be closed
			client := dialRaw(t, l)
			client.preface("H", fd)
			unix.Close(fd)
			client.close()
			c := acceptFrom(t, l)
			if err := c.WaitClient(context.Background()); !errors.Is(err, ErrContextLost) {
				t.Fatalf("WaitClient: %v", err)
			}
			inTime(t, "Close", func() { c.Close() })
		}
		inTime(t, "closing what lingers", discard.Wait)
		if now := threads(); now > before+20 {
			t.Errorf("%d threads after %d sockets that linger, %d before", now, many, before)
		}
		if now := len(leftover.Descriptors()); now > descriptors+many+4 { // the other ends are the test's
			t.Errorf("%d descriptors after %d sockets that linger, %d before", now, many, descriptors)
		}
	})
}

func TestIDsThatTheKernelCantReportAreNeverWorn(t *testing.T) {
	needRoot(t, "it starts clients as other users")
	tests := []struct {
		name string
		attr *syscall.SysProcAttr
		says string
	}{
		{"overflow uid", asUser(65534, 61001), "uid 65534"},
		{"overflow gid", asUser(61001, 65534), "gid 65534"},
		{"overflow group", asUser(61001, 61001, 61001, 65534), "group 65534"},
		{"root of another user namespace", &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		}, "another user namespace"},
		{"root of another mount namespace", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}, "another mount namespace"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.attr.Cloneflags != 0 {
				if err := without.Namespaces(test.attr.Cloneflags); err != nil {
					t.Skipf("this machine lets nobody make the namespaces %#x: %v", test.attr.Cloneflags, err)
				}
			}
			for _, allow := range []bool{false, true} {
				config := &ListenConfig{AllowForeignRoot: allow}
				l := listenAt(t, config)
				leftover.ByThis(t, func() {
					p := startRaw(t, "plain", test.attr, []string{"GUISE_TEST_PATH=" + l.Addr().String()})
					c := acceptFrom(t, l)
					defer c.Close()
					if err := c.WaitClient(context.Background()); err != nil {
						t.Fatal(err)
					}
					ran := false
					err := c.RunAsClient(func(*Scope) error { ran = true; return nil })
					if want := allow && strings.HasPrefix(test.name, "root"); want {
						if err != nil || !ran {
							t.Errorf("with AllowForeignRoot: %v, ran: %v", err, ran)
						}
					} else if ran || !errors.Is(err, ErrNotWearable) || !strings.Contains(err.Error(), test.says) {
						t.Errorf("RunAsClient: %v, ran: %v, want ErrNotWearable that says %q", err, ran, test.says)
					}
					if t, err := c.Client(); err == nil {
						err = RunAs(t, func(*Scope) error { ran = true; return nil })
						_ = err
					}
					if who, err := c.Client(); err != nil || who == nil {
						t.Errorf("identifying it: %v", err)
					}
					p.end()
				})
			}
		})
	}
}

func TestAnnouncedContextIsOfTheAnnouncingThread(t *testing.T) {
	needRoot(t, "the client changes its ids")
	tests := []struct {
		name         string
		uid          int
		never        string
		level, above byte
	}{
		{"another uid", 61002, "", 0, 0},
		{"overflow uid", 65534, "uid 65534", 0, 0},
		{"a level above that of the open", 61002, "level", byte(Identification), byte(Delegation)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := listenAt(t, nil)
			leftover.ByThis(t, func() {
				p := startRaw(t, "changer", asUser(0, 61001, 61001), []string{"GUISE_TEST_PATH=" + l.Addr().String(),
					fmt.Sprintf("GUISE_TEST_UID=%d %d %d", test.uid, test.level, test.above)})
				c := acceptFrom(t, l)
				defer c.Close()
				var b [8]byte
				if n, err := c.Read(b[:]); err != nil || string(b[:n]) != "1" {
					t.Fatalf("the first read: %q, %v", b[:n], err)
				}
				p.resume()
				if n, err := c.Read(b[:]); err != nil || string(b[:n]) != "2" {
					t.Fatalf("the second read: %q, %v", b[:n], err)
				}
				who, err := c.Client()
				if err != nil || int(who.UID()) != test.uid || who.GID() != 61001 {
					t.Errorf("Client = %v, %v", who, err)
				}
				owner := -1
				err = c.RunAsClient(func(*Scope) error { owner = unix.Geteuid(); return nil })
				switch {
				case test.never == "" && (err != nil || owner != test.uid):
					t.Errorf("RunAsClient: %v, as %d", err, owner)
				case test.never != "" && (err == nil || owner >= 0 || !strings.Contains(err.Error(), test.never)):
					t.Errorf("RunAsClient: %v, as %d, want an error that says %q", err, owner, test.never)
				}
				p.end()
			})
		})
	}
}

var _ = addRole("changer", func() {
	var uid int
	var level, above byte
	must1(fmt.Sscan(os.Getenv("GUISE_TEST_UID"), &uid, &level, &above))
	become(61001, 61001, uid)
	c := newRawClient()
	c.say(rawHello(level, rawDynamic))
	c.preface("G", c.far)
	c.write("1")
	c.await()
	become(-1, uid, -1)
	must(unix.Sendmsg(c.near, []byte(rawContext(above, 1, 1)),
		append(unix.UnixCredentials(c.claim()), unix.UnixRights(c.token())...), nil, 0))
	c.write("2")
	io.Copy(io.Discard, os.Stdin)
})

func addRole(name string, play func()) struct{} {
	rawRoles[name] = play
	return struct{}{}
}

func TestAllowIsAskedOnceAndSeesTheKernelsToken(t *testing.T) {
	var asked atomic.Int32
	l := listenAt(t, &ListenConfig{Allow: func(who *token.Token) error {
		asked.Add(1)
		if int(who.UID()) != os.Geteuid() || who.Level() != Impersonation {
			return fmt.Errorf("the token is %v", who)
		}
		return nil
	}})
	client, err := Dial(l.Addr().String(), &QoS{Level: Anonymous})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c := acceptFrom(t, l)
	for range 3 {
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := c.RunAsClient(func(*Scope) error { return nil }); !errors.Is(err, ErrLevel) {
			t.Errorf("RunAsClient of an anonymous client: %v", err)
		}
		if who, err := c.Client(); !errors.Is(err, ErrLevel) {
			t.Errorf("Client of an anonymous client = %v, %v", who, err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("Allow was asked %d times", n)
	}
}

func TestClientThatIsNotLetInHearsWhy(t *testing.T) {
	bothModes(t, func(t *testing.T, config ListenConfig) {
		refuse := true
		config.Allow = func(*token.Token) error {
			if refuse {
				refuse = false
				return errors.New("not on Sundays")
			}
			return nil
		}
		var log output
		config.Logger = slog.New(slog.NewTextHandler(&log, nil))
		l := listenAt(t, &config)
		leftover.ByThis(t, func() {
			client, err := Dial(l.Addr().String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			client.SetDeadline(time.Now().Add(patience))
			second := dialRaw(t, l)
			defer second.close()
			c := acceptFrom(t, l)
			defer c.Close()
			_, err = client.Read(make([]byte, 1))
			var refusal announce.Refusal
			if !errors.As(err, &refusal) || refusal != announce.RefusedAccess {
				t.Errorf("the client's Read: %v, want the server's refusal", err)
			}
			if _, err = client.Write([]byte("x")); !errors.As(err, &refusal) {
				t.Errorf("the client's Write: %v, want the server's refusal", err)
			}
			if line := log.line(); !strings.Contains(line, "not on Sundays") {
				t.Errorf("the log says %q", line)
			}
		})
	})
}

// TestClientHearsItsRefusalWhateverCameBefore: a client that states no tracking is told what is in force first.
func TestClientHearsItsRefusalWhateverCameBefore(t *testing.T) {
	l := listenAt(t, &ListenConfig{Tracking: Dynamic})
	for _, listened := range []bool{false, true} {
		t.Run(fmt.Sprintf("heard what is in force %v", listened), func(t *testing.T) {
			client, err := Dial(l.Addr().String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			client.SetDeadline(time.Now().Add(patience))
			c := acceptFrom(t, l)
			if err := c.WaitClient(context.Background()); err != nil {
				t.Fatal(err)
			}
			if listened {
				if got := client.QoS().Tracking; got != Dynamic {
					t.Errorf("the client says that tracking is %v", got)
				}
			}
			// A message that breaks the protocol, with another behind it that the server leaves unread.
			var look announce.Look
			if err := look.Take(); err != nil {
				t.Fatal(err)
			}
			c.server.mu.Lock() // the server must not look in between
			for range 2 {
				if err := client.client.channel.Announce(announce.Wait, &look, announce.Context{Level: 77}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := client.socket.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			c.server.mu.Unlock()
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrContextLost) {
				t.Fatalf("the server's Read: %v", err)
			}
			if listened {
				client.QoS() // must not swallow the refusal
			}
			var refusal announce.Refusal
			if _, err = client.Read(make([]byte, 1)); !errors.As(err, &refusal) {
				t.Errorf("the client's Read: %v, want the server's refusal", err)
			}
		})
	}
}

// fallback starts the test binary in a role and returns what it says.
func fallback(t *testing.T, role string) string {
	t.Helper()
	p := startRaw(t, role, nil, []string{"GUISE_TEST_DIR=" + testdir.Open(t, 0o755)})
	return p.end()
}

// openIn listens and dials in this process, as uid 61001 if this is root and ordinary is set.
func openIn(qos *QoS, ordinary bool) (l *Listener, server, client *Conn) {
	l = must1(Listen(filepath.Join(os.Getenv("GUISE_TEST_DIR"), "pipe"), nil))
	dial := func(*Scope) (err error) {
		client, err = Dial(l.Addr().String(), qos)
		return err
	}
	if ordinary && os.Geteuid() == 0 {
		must(RunAs(must1(token.FromIDs(61001, 61001, nil)), dial))
	} else {
		must(dial(nil))
	}
	return l, must1(l.AcceptPipe()), client
}

var _ = addRole("no-peerpidfd", func() {
	must(without.SocketOptions(unix.SO_PEERPIDFD))
	l, server, client := openIn(&QoS{Tracking: Dynamic}, true)
	defer l.Close()
	must1(client.Write([]byte("1")))
	must1(server.Read(make([]byte, 1)))
	fmt.Println(server.QoS().Tracking, client.QoS().Tracking)
	fmt.Println(server.RunAsClient(func(*Scope) error { return nil }))
	if os.Geteuid() == 0 {
		// The client's context changes, and the connection goes on as it was.
		must(RunAs(must1(token.FromIDs(61002, 61002, nil)), func(*Scope) error { must1(client.Write([]byte("2"))); return nil }))
		must1(server.Read(make([]byte, 1)))
		fmt.Println(must1(server.Client()).UID())
	}
	err := features.DynamicTracking()
	fmt.Println(errors.Is(err, features.ErrNotSupported), err)
})

func TestWithoutSO_PEERPIDFDDynamicTrackingFallsBackToStatic(t *testing.T) {
	want := "static static\n<nil>\n"
	if os.Geteuid() == 0 {
		want += "61001\n"
	}
	want += "true SO_PEERPIDFD: not supported by this kernel: it takes Linux 6.5"
	if got := fallback(t, "no-peerpidfd"); got != want {
		t.Errorf("it says\n%s\nwant\n%s", got, want)
	}
}

var _ = addRole("no-peerpidfd-root", func() {
	must(without.SocketOptions(unix.SO_PEERPIDFD))
	l, server, client := openIn(&QoS{Tracking: Dynamic}, false)
	defer l.Close()
	must1(client.Write([]byte("1")))
	must1(server.Read(make([]byte, 1)))
	err := server.RunAsClient(func(*Scope) error { fmt.Println("ran"); return nil })
	fmt.Println(errors.Is(err, ErrNotWearable), must1(server.Client()).Capabilities())
})

func TestWithoutSO_PEERPIDFDRootIsNotActedFor(t *testing.T) {
	needRoot(t, "the client is root")
	if got := fallback(t, "no-peerpidfd-root"); got != "true {none none}" {
		t.Errorf("it says %s", got)
	}
}

var _ = addRole("no-peergroups", func() { refuseAll(unix.ENOPROTOOPT, unix.SO_PEERGROUPS) })
var _ = addRole("no-peercred", func() { refuseAll(unix.ENOMEM, unix.SO_PEERCRED) })
var _ = addRole("no-domain", func() { refuseAll(unix.EACCES, unix.SO_DOMAIN) })

// refuseAll says what a client of a server for which a getsockopt fails sees.
func refuseAll(errno syscall.Errno, option int) {
	l := must1(Listen(filepath.Join(os.Getenv("GUISE_TEST_DIR"), "pipe"), nil))
	must(without.SocketOptionsFail(errno, option))
	client := must1(Dial(l.Addr().String(), nil))
	accepted := make(chan error, 1)
	go func() {
		_, err := l.AcceptPipe()
		accepted <- err
	}()
	client.SetDeadline(time.Now().Add(patience))
	_, err := client.Read(make([]byte, 1))
	var timeout net.Error
	fmt.Println(err != nil && !(errors.As(err, &timeout) && timeout.Timeout()))
	l.Close()
	fmt.Println(errors.Is(<-accepted, net.ErrClosed))
	if option == unix.SO_PEERGROUPS {
		fmt.Println(features.PeerGroups.Err())
	}
}

func TestClientWhoseContextCantBeAskedForIsNotLetIn(t *testing.T) {
	for role, want := range map[string]string{
		"no-peergroups": "true\ntrue\nSO_PEERGROUPS: not supported by this kernel: it takes Linux 4.13",
		"no-peercred":   "true\ntrue",
		"no-domain":     "true\ntrue",
	} {
		t.Run(role, func(t *testing.T) {
			if got := fallback(t, role); got != want {
				t.Errorf("it says\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// leaveRoomFor lets this process have only so many more descriptors.
func leaveRoomFor(n int) {
	fd := must1(unix.Open("/dev/null", unix.O_CLOEXEC, 0))
	unix.Close(fd)
	var limit syscall.Rlimit
	must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	limit.Cur = uint64(fd + n)
	must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
}

// outOfDescriptors plays both ends: the server has room for n descriptors more when the client's preface, or its announcement,
// arrives.
func outOfDescriptors(n int, announcement bool) {
	l := must1(Listen(filepath.Join(os.Getenv("GUISE_TEST_DIR"), "pipe"), nil))
	defer l.Close()
	must(os.Setenv("GUISE_TEST_PATH", l.Addr().String()))
	c := newRawClient()
	server := must1(l.AcceptPipe())
	if announcement {
		c.open()
		must1(server.Read(make([]byte, 8)))
		server.server.mu.Lock() // the server must not look before that
		must(c.announce(1, c.token(), c.claim()))
		c.write("2")
		leaveRoomFor(n)
		server.server.mu.Unlock()
	} else {
		c.say(rawHello(byte(Anonymous), rawDynamic))
		c.preface("G", c.far)
		c.write("2")
		leaveRoomFor(n)
	}
	read, err := server.Read(make([]byte, 8))
	fmt.Println(read, errors.Is(err, ErrContextLost))
	err = server.RunAsClient(func(*Scope) error { fmt.Println("ran"); return nil })
	fmt.Println(errors.Is(err, ErrContextLost))
	discard.Wait()
	c.hear()
}

var _ = addRole("no-room-for-channel", func() { outOfDescriptors(0, false) })
var _ = addRole("no-room-for-process", func() { outOfDescriptors(1, false) })
var _ = addRole("no-room-for-token", func() { outOfDescriptors(0, true) })
var _ = addRole("no-room-for-tokens-process", func() { outOfDescriptors(1, true) })

func TestServerOutOfDescriptorsEndsTheConnection(t *testing.T) {
	for role, want := range map[string]string{
		"no-room-for-channel":        "0 true\ntrue\nheard nothing",
		"no-room-for-process":        "0 true\ntrue\nrefused 4",
		"no-room-for-token":          "0 true\ntrue\nrefused 4",
		"no-room-for-tokens-process": "0 true\ntrue\nrefused 4",
	} {
		t.Run(role, func(t *testing.T) {
			if got := fallback(t, role); got != want {
				t.Errorf("it says\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestListenFileTakesOnlyUnixSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	leftover.ByThis(t, func() {
		if got, err := ListenOn(l, nil); err == nil || !strings.Contains(err.Error(), "family 2") {
			t.Errorf("ListenOn a TCP listener = %v, %v", got, err)
		}
		null, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		if got, err := ListenFile(null, nil); !errors.Is(err, unix.ENOTSOCK) {
			t.Errorf("ListenFile of a file = %v, %v", got, err)
		}
		a, b := rawPair(unix.SOCK_DGRAM)
		defer unix.Close(b)
		f := os.NewFile(uintptr(a), "datagrams")
		defer f.Close()
		if got, err := ListenFile(f, nil); err == nil || !strings.Contains(err.Error(), "neither a stream") {
			t.Errorf("ListenFile of a datagram socket = %v, %v", got, err)
		}
	})
}
