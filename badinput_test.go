package guise

import (
	"errors"
	"fmt"
	"github.com/guise-project/guise/internal/leftover"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	toldNothing  = "heard nothing"
	toldProtocol = "refused 2"
	toldVersion  = "refused 3"
	toldBusy     = "refused 4"
	toldProof    = "refused 5"
)

// misbehaviours has a client for each way to break the protocol, and for each attack that a rule of the token socket answers.
func misbehaviours() []misbehaviour {
	// A preface of one descriptor that is no control channel. The client can't be told.
	channel := func(name string, make func(c *rawClient) int) misbehaviour {
		return misbehaviour{name: "channel: " + name, first: true, told: toldNothing, says: "no control channel",
			do: func(c *rawClient) { c.preface("G", make(c)); c.write("2") }}
	}
	// A first control message that is no hello.
	hello := func(name, told, says string, say func(c *rawClient)) misbehaviour {
		return misbehaviour{name: "hello: " + name, first: true, told: told, says: says,
			do: func(c *rawClient) { say(c); c.preface("G", c.far); c.write("2") }}
	}
	// A control message after the hello.
	message := func(name, told, says string, say func(c *rawClient)) misbehaviour {
		return misbehaviour{name: "message: " + name, told: told, says: says, do: func(c *rawClient) { say(c); c.write("2") }}
	}
	// A token socket that proves nothing, claimed as this process would one of its own.
	token := func(name, says string, make func(c *rawClient) int) misbehaviour {
		return misbehaviour{name: "token: " + name, told: toldProof, says: says,
			do: func(c *rawClient) { must(c.announce(1, make(c), c.claim())); c.write("2") }}
	}
	// A message that takes a client who can become anybody.
	service := func(name, told, says string, say func(c *rawClient)) misbehaviour {
		return misbehaviour{name: "way: " + name, as: asRoot(), root: true, told: told, says: says, do: func(c *rawClient) { say(c); c.write("2") }}
	}
	accepted := func(name func() string) func(*rawClient) int {
		return func(*rawClient) int { return rawAccepted(name()) }
	}
	bound := func(mine bool, name func() string) func(*rawClient) int {
		return func(*rawClient) int {
			a, b := rawPair(unix.SOCK_SEQPACKET)
			if mine {
				rawBind(a, name())
			} else {
				rawBind(b, name())
			}
			return a
		}
	}
	nul := func() string { return "\x00" + rawAbstract("") }
	named := func() string { return rawAbstract("guise-test") }
	pair := func(kind int) func(*rawClient) int {
		return func(*rawClient) int { a, _ := rawPair(kind); return a }
	}
	file := func(path string) func(*rawClient) int { return func(*rawClient) int { return rawFile(path) } }
	pipe := func(*rawClient) int {
		var p [2]int
		must(unix.Pipe2(p[:], unix.O_CLOEXEC))
		return p[0]
	}
	tcp := func(*rawClient) int { return rawSocket(unix.AF_INET, unix.SOCK_STREAM) }

	all := []misbehaviour{
		{name: "preface: wrong byte", first: true, told: toldNothing, says: "preface's byte",
			do: func(c *rawClient) { c.preface("H", c.far); c.write("2") }},
		{name: "preface: two descriptors", first: true, told: toldNothing, says: "descriptors",
			do: func(c *rawClient) { c.say(rawHello(0, 0)); c.preface("G", c.far, c.far); c.write("2") }},
		{name: "preface: 253 descriptors", first: true, told: toldNothing, says: "descriptors",
			do: func(c *rawClient) {
				fds := make([]int, 253)
				for i := range fds {
					fds[i] = c.far
				}
				c.preface("G", fds...)
				c.write("2")
			}},
		channel("file", file("/dev/null")),
		channel("directory", file("/")),
		channel("pipe", pipe),
		channel("TCP socket", tcp),
		channel("stream socketpair", pair(unix.SOCK_STREAM)),
		channel("accepted connection", accepted(named)),
		channel("accepted connection on a name that begins with NUL", accepted(nul)),
		channel("socketpair with a name", bound(true, named)),
		channel("socketpair whose peer has a name that begins with NUL", bound(false, nul)),

		hello("missing", toldProtocol, "without a hello", func(c *rawClient) {}),
		hello("short", toldProtocol, "bytes long", func(c *rawClient) { c.say(rawHello(0, 0)[:20]) }),
		hello("oversized", toldProtocol, "bytes long", func(c *rawClient) { c.say(rawHello(0, 0) + strings.Repeat("x", 60000)) }),
		hello("empty", toldProtocol, "0 bytes", func(c *rawClient) { c.say("") }),
		hello("other version", toldVersion, "version 2", func(c *rawClient) { c.say("GU\x02" + rawHello(0, 0)[3:]) }),
		hello("unknown kind", toldProtocol, "unknown kind", func(c *rawClient) { c.say("GU\x01\x77") }),
		hello("unknown level", toldProtocol, "level 9", func(c *rawClient) { c.say(rawHello(9, 0)) }),
		hello("unknown tracking", toldProtocol, "tracking 9", func(c *rawClient) { c.say(rawHello(0, 9)) }),
		hello("text", toldProtocol, "not one of guise's", func(c *rawClient) { must1(unix.Write(c.near, []byte("usage: su [options]\n"))) }),
		hello("with a descriptor", toldProtocol, "plain hello", func(c *rawClient) { c.say(rawHello(0, 0), c.token()) }),
		hello("with 200 descriptors", toldBusy, "descriptors", func(c *rawClient) {
			fds := make([]int, 200)
			for i := range fds {
				fds[i] = c.far
			}
			c.say(rawHello(0, 0), fds...)
		}),
		hello("after a context", toldProtocol, "plain hello", func(c *rawClient) {
			must(c.announce(1, c.token(), c.claim()))
			c.say(rawHello(0, rawDynamic))
		}),

		hello("between writes", toldProtocol, "flags 0x2", func(c *rawClient) {
			h := []byte(rawHello(0, rawDynamic))
			h[6] = 2
			c.say(string(h))
		}),
		hello("after a way of who can't become anybody", toldProof, "has to claim", func(c *rawClient) {
			must(c.sayAs(c.claim(), rawWay(1)))
			c.say(rawHello(0, rawDynamic))
		}),
		hello("after a loss", toldProtocol, "plain hello", func(c *rawClient) { c.say(rawLost(1, 0)); c.say(rawHello(0, rawDynamic)) }),
		hello("after a way of no hops", toldProtocol, "of 0 hops", func(c *rawClient) { c.say(rawWay(0)); c.say(rawHello(0, rawDynamic)) }),

		message("hello again", toldProtocol, "not again", func(c *rawClient) { c.say(rawHello(0, rawDynamic)) }),
		message("a server's", toldProtocol, "must not send", func(c *rawClient) { c.say("GU\x01\x04\x01\x00\x00\x00") }),
		message("empty", toldProtocol, "0 bytes", func(c *rawClient) { c.say("") }),
		message("short", toldProtocol, "bytes long", func(c *rawClient) { c.say(rawContext(0, 1, 1)[:20], c.token()) }),
		message("oversized", toldProtocol, "bytes long", func(c *rawClient) { c.say(rawContext(0, 1, 1)+strings.Repeat("x", 60000), c.token()) }),
		message("other version", toldVersion, "version 0", func(c *rawClient) { c.say("GU\x00"+rawContext(0, 1, 1)[3:], c.token()) }),
		message("unknown kind", toldProtocol, "unknown kind", func(c *rawClient) { c.say("GU\x01\x77", c.token()) }),
		message("unknown level", toldProtocol, "level 7", func(c *rawClient) { c.say(rawContext(7, 1, 1), c.token()) }),
		message("a tricked program's text", toldProtocol, "not one of guise's", func(c *rawClient) {
			must1(unix.Write(c.near, []byte("mount: only root can do that\n")))
		}),
		message("a tricked program's well-formed text", toldProof, "without a token socket", func(c *rawClient) {
			must1(unix.Write(c.near, []byte(rawContext(0, 1, 1))))
		}),
		message("explicit credentials, no descriptor", toldProof, "without a token socket", func(c *rawClient) { must(c.announce(1, -1, c.claim())) }),
		message("two token sockets", toldBusy, "descriptors", func(c *rawClient) { c.say(rawContext(0, 1, 1), c.token(), c.token()) }),
		message("253 token sockets", toldBusy, "descriptors", func(c *rawClient) {
			fds := make([]int, 253)
			for i := range fds {
				fds[i] = c.near
			}
			c.say(rawContext(0, 1, 1), fds...)
		}),
		message("begins in the past", toldProtocol, "has been read", func(c *rawClient) { must(c.announceAt(1, 0, c.token(), c.claim())) }),
		message("begins before the one before, where nothing has been read", toldProtocol, "after one that begins at 7", func(c *rawClient) {
			token := c.token()
			must(c.announceAt(1, 7, token, c.claim()))
			must(c.announceAt(2, 5, token, c.claim()))
		}),
		message("sequence number 0", toldProof, "does not rise", func(c *rawClient) { must(c.announce(0, c.token(), c.claim())) }),
		message("replayed", toldProof, "does not rise", func(c *rawClient) {
			token := c.token()
			must(c.announce(1, token, c.claim()))
			must(c.announce(1, token, c.claim()))
		}),

		message("between writes, at a place", toldProtocol, "is to begin at 1", func(c *rawClient) {
			must(c.sayAs(c.claim(), rawNow(1, 1), c.token()))
		}),
		message("between writes, without a token socket", toldProof, "without a token socket", func(c *rawClient) { must(c.sayAs(c.claim(), rawNow(1, 0))) }),
		message("between writes, another process's token socket", toldProof, "another process", func(c *rawClient) {
			must(c.sayAs(c.claim(), rawNow(1, 0), c.foreign()))
		}),
		message("between writes, number 0", toldProof, "does not rise", func(c *rawClient) { must(c.sayAs(c.claim(), rawNow(0, 0), c.token())) }),
		message("between writes, replayed with the write", toldProof, "does not rise", func(c *rawClient) {
			token := c.token()
			must(c.sayAs(c.claim(), rawNow(1, 0), token))
			must(c.announce(1, token, c.claim()))
		}),
		message("unknown flag", toldProtocol, "flags 0x8", func(c *rawClient) {
			b := []byte(rawContext(0, 1, 1))
			b[5] = 8
			must(c.sayAs(c.claim(), string(b), c.token()))
		}),
		message("loss with a descriptor", toldProtocol, "a descriptor came", func(c *rawClient) { c.say(rawLost(1, 0), c.token()) }),
		message("loss, number 0", toldProof, "does not rise", func(c *rawClient) { c.say(rawLost(0, 0)) }),
		message("loss with the number of the context before", toldProof, "does not rise", func(c *rawClient) {
			must(c.announce(7, c.token(), c.claim()))
			c.say(rawLost(7, 9))
		}),
		message("loss with reserved bytes", toldProtocol, "reserved", func(c *rawClient) { c.say("GU\x01\x06\x00\x00\x01\x00" + rawLost(1, 0)[8:]) }),
		message("loss that is cut off", toldProtocol, "bytes long", func(c *rawClient) { c.say(rawLost(1, 0)[:16]) }),

		message("way without privilege, with its own ids", toldProof, "has to claim", func(c *rawClient) {
			must(c.sayAs(c.claim(), rawWay(1)))
			mustUnlessEnded(c.announce(1, c.token(), c.claim()))
		}),
		message("way without privilege, with what has to be claimed", toldProof, "has to claim", func(c *rawClient) {
			for _, claim := range []*unix.Ucred{
				{Pid: c.claim().Pid, Uid: rawClaimed, Gid: rawClaimed}, {Pid: c.claim().Pid, Uid: rawClaimed, Gid: c.claim().Gid}, {Pid: c.claim().Pid, Uid: c.claim().Uid, Gid: rawClaimed},
			} {
				if err := c.sayAs(claim, rawWay(1)); err != unix.EPERM {
					panic(fmt.Sprint("the kernel lets this process claim ids that it can't take: ", err))
				}
			}
			c.say(rawWay(1)) // the kernel adds the real ids
			mustUnlessEnded(c.announce(1, c.token(), c.claim()))
		}),
		message("way in a tricked program's text", toldProof, "has to claim", func(c *rawClient) { must1(unix.Write(c.near, []byte(rawWay(1)))) }),
		message("another process's token socket after a way without privilege", toldProof, "has to claim", func(c *rawClient) {
			foreign := c.foreign()
			must(c.sayAs(c.claim(), rawWay(1)))
			mustUnlessEnded(c.announce(1, foreign, c.claim()))
		}),
		message("way that another process sent", toldProof, "sent by process", func(c *rawClient) { c.child("guide", c.near) }),
		message("way of no hops", toldProtocol, "of 0 hops", func(c *rawClient) { c.say(rawWay(0)) }),
		message("way of 33 hops", toldProtocol, "of 33 hops", func(c *rawClient) { c.say(rawWay(33)) }),
		message("way that is cut off", toldProtocol, "cut off", func(c *rawClient) { c.say(rawWay(2)[:len(rawWay(2))-1]) }),
		message("way and more", toldProtocol, "too many", func(c *rawClient) { c.say(rawWay(2) + "x") }),

		service("uid alone", toldProof, "has to claim", func(c *rawClient) {
			foreign := c.foreign()
			must(c.sayAs(&unix.Ucred{Pid: c.claim().Pid, Uid: rawClaimed}, rawWay(1)))
			mustUnlessEnded(c.announce(1, foreign, c.claim()))
		}),
		service("gid alone", toldProof, "has to claim", func(c *rawClient) {
			foreign := c.foreign()
			must(c.sayAs(&unix.Ucred{Pid: c.claim().Pid, Gid: rawClaimed}, rawWay(1)))
			mustUnlessEnded(c.announce(1, foreign, c.claim()))
		}),
		service("other pid", toldProof, "sent by process", func(c *rawClient) {
			must(c.sayAs(&unix.Ucred{Pid: int32(os.Getppid()), Uid: rawClaimed, Gid: rawClaimed}, rawWay(1)))
		}),
		service("with a descriptor", toldProtocol, "a descriptor came", func(c *rawClient) {
			must(c.sayAs(&unix.Ucred{Pid: c.claim().Pid, Uid: rawClaimed, Gid: rawClaimed}, rawWay(1), c.foreign()))
		}),
		service("missing, for another process's token socket", toldProof, "another process", func(c *rawClient) {
			must(c.announce(1, c.foreign(), c.claim()))
		}),
		service("one, for two of another process's token sockets", toldProof, "another process", func(c *rawClient) {
			foreign := c.foreign()
			c.way()
			must(c.announce(1, foreign, c.claim()))
			must(c.announce(2, foreign, c.claim()))
		}),
		service("one, for a loss, and another process's token socket", toldProof, "another process", func(c *rawClient) {
			foreign := c.foreign()
			c.way()
			c.say(rawLost(1, 9))
			must(c.announce(2, foreign, c.claim()))
		}),
		service("proved, and then an unproved one", toldProof, "has to claim", func(c *rawClient) {
			foreign := c.foreign()
			c.way()
			must(c.sayAs(c.claim(), rawWay(1)))
			mustUnlessEnded(c.announce(1, foreign, c.claim()))
		}),
		service("and a hello again", toldProtocol, "not again", func(c *rawClient) { c.way(); c.say(rawHello(0, rawDynamic)) }),
		service("and a claim that is not the token socket's", toldProof, "claims uid 61005", func(c *rawClient) {
			foreign := c.foreign()
			c.way()
			must(c.announce(1, foreign, &unix.Ucred{Pid: c.claim().Pid, Uid: 61005, Gid: 61005}))
		}),
		service("and a stream socketpair", toldProof, "of type 1", func(c *rawClient) { c.way(); must(c.announce(1, pair(unix.SOCK_STREAM)(c), c.claim())) }),
		service("and an accepted connection", toldProof, "has a name", func(c *rawClient) { c.way(); must(c.announce(1, rawAccepted(named()), c.claim())) }),
		service("and a file", toldProof, "no socket", func(c *rawClient) { c.way(); must(c.announce(1, rawFile("/dev/null"), c.claim())) }),

		token("stream socketpair", "of type 1", pair(unix.SOCK_STREAM)),
		token("datagram socketpair", "of type 2", pair(unix.SOCK_DGRAM)),
		token("file", "no socket", file("/dev/null")),
		token("pipe", "no socket", pipe),
		token("TCP socket", "of family 2", tcp),
		token("the pipe itself", "", func(c *rawClient) int { return c.pipe }),
		token("accepted connection", "has a name", accepted(named)),
		token("accepted connection on a name that begins with NUL", "has a name", accepted(nul)),
		token("socketpair with a name", "has a name", bound(true, named)),
		token("socketpair with a name that begins with NUL", "has a name", bound(true, nul)),
		token("socketpair whose peer has a name", "has a name", bound(false, named)),
		token("socketpair whose peer has a name that begins with NUL", "has a name", bound(false, nul)),
		token("made by another process", "another process", (*rawClient).foreign),
		message("sent by another process", toldProof, "sent by process", func(c *rawClient) { c.child("announcer", c.near, c.token()) }),
		{name: "token: of a process that has gone", dies: true, says: "",
			do: func(c *rawClient) { must(c.announce(1, c.token(), c.claim())); c.write("2") }},

		{name: "claim: other pid", as: asRoot(), root: true, told: toldProof, says: "sent by process",
			do: func(c *rawClient) {
				claim := c.claim()
				claim.Pid = int32(os.Getppid())
				must(c.announce(1, c.token(), claim))
				c.write("2")
			}},
		{name: "claim: other uid", as: asRoot(), root: true, told: toldProof, says: "claims uid 61005",
			do: func(c *rawClient) {
				claim := c.claim()
				claim.Uid = 61005
				must(c.announce(1, c.token(), claim))
				c.write("2")
			}},
		{name: "claim: other gid", as: asRoot(), root: true, told: toldProof, says: "gid 61005",
			do: func(c *rawClient) {
				claim := c.claim()
				claim.Gid = 61005
				must(c.announce(1, c.token(), claim))
				c.write("2")
			}},
		{name: "claim: the process's real uid for a socket of its effective one", as: asRoot(), root: true, told: toldProof, says: "claims uid 61001",
			before: func() { become(61001, 61001, 61002) },
			do: func(c *rawClient) {
				become(-1, 61002, -1)
				claim := c.claim()
				claim.Uid = 61001
				must(c.announce(1, c.token(), claim))
				c.write("2")
			}},
		{name: "claim: of ids that the process had and may not take any more", as: asRoot(), root: true, told: toldProof, says: "claims uid 61001",
			before: func() { become(61001, 61001, 61002) },
			do: func(c *rawClient) {
				become(-1, 61002, -1)
				old, claim := c.token(), c.claim()
				become(61001, 61001, 61001)
				if err := c.announce(1, old, claim); err != unix.EPERM {
					panic(fmt.Sprint("the kernel lets this process claim ids that it can't take: ", err))
				}
				must(c.announce(1, old, nil)) // the kernel adds the real ids
				c.write("2")
			}},
		{name: "claim: root's, from before it was given up", as: asRoot(), root: true, told: toldProof, says: "claims uid 61001",
			do: func(c *rawClient) {
				old, claim := c.token(), c.claim()
				become(61001, 61001, 61001)
				if err := c.announce(1, old, claim); err != unix.EPERM {
					panic(fmt.Sprint("the kernel lets this process claim ids that it can't take: ", err))
				}
				must(c.announce(1, old, nil))
				c.write("2")
			}},
	}
	return all
}

func TestMisbehavingClientLosesItsConnectionAndIsNeverActedFor(t *testing.T) {
	for _, mode := range []struct {
		name    string
		message bool
	}{{"bytes", false}, {"messages", true}} {
		t.Run(mode.name, func(t *testing.T) {
			for _, m := range misbehaviours() {
				t.Run(m.name, func(t *testing.T) {
					if m.root {
						needRoot(t, "the client changes its ids")
					}
					l := listenAt(t, &ListenConfig{Message: mode.message})
					leftover.ByThis(t, func() { testMisbehaviour(t, l, m) })
				})
			}
		})
	}
}

func testMisbehaviour(t *testing.T, l *Listener, m misbehaviour) {
	as := m.as
	if as == nil {
		as = asUser(61001, 61001, 61001, 61002)
	}
	p := startRaw(t, m.name, as, []string{"GUISE_TEST_PATH=" + l.Addr().String()})
	c := acceptFrom(t, l)
	defer c.Close()
	var b [16]byte
	if !m.first {
		if n, err := c.Read(b[:]); err != nil || string(b[:n]) != "1" {
			t.Fatalf("the first read: %q, %v", b[:n], err)
		}
		if err := c.RunAsClient(func(*Scope) error { return nil }); err != nil {
			t.Fatalf("acting for the client before: %v", err)
		}
		if got := c.QoS().Tracking; got != Dynamic {
			t.Fatalf("tracking is %v", got)
		}
		if m.dies {
			// The server must not look before it is dead.
			c.server.mu.Lock()
			p.resume()
			p.end()
			c.server.mu.Unlock()
		} else {
			p.resume()
		}
	}
	n, err := c.Read(b[:])
	if !errors.Is(err, ErrContextLost) || n != 0 {
		t.Errorf("Read = %q, %v, want ErrContextLost", b[:n], err)
	} else if !strings.Contains(err.Error(), m.says) {
		t.Errorf("Read: %v, want an error that says %q", err, m.says)
	}
	err = c.RunAsClient(func(s *Scope) error {
		t.Errorf("a function ran as %v", s.Token())
		return nil
	})
	if !errors.Is(err, ErrContextLost) {
		t.Errorf("RunAsClient: %v, want ErrContextLost", err)
	}
	if who, err := c.Client(); !errors.Is(err, ErrContextLost) {
		t.Errorf("Client = %v, %v, want ErrContextLost", who, err)
	}
	if n, err := c.Write([]byte("3")); !errors.Is(err, ErrContextLost) {
		t.Errorf("Write = %d, %v, want ErrContextLost", n, err)
	}
	if !m.dies {
		if told := p.end(); told != m.told {
			t.Errorf("the client %q, want %q", told, m.told)
		}
	}
}
