package announce

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/without"
	"github.com/guise-project/guise/token"
)

// wayTest, in the environment, names the test of ways whose client the process plays.
const wayTest = "GUISE_TEST_WAY"

func init() {
	// way: a client of descriptor 3, a process of its own because the kernel looks at who it is.
	roles["way"] = func() { playWay(os.Getenv(wayTest)) }
	// way-in-namespace: the same, in a user namespace that this process makes.
	roles["way-in-namespace"] = func() {
		id := 0 // what unshare -Ur maps
		if os.Getenv("GUISE_TEST_MAP") == "claimed" {
			id = claimedID
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), role+"=way")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.ExtraFiles = []*os.File{os.NewFile(3, "descriptor 3"), os.NewFile(4, "descriptor 4")}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: id, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: id, HostID: os.Getgid(), Size: 1}},
		}
		if err := cmd.Run(); err != nil {
			fmt.Println("no namespace:", err)
		}
	}
}

// wayClient is a client that sends what a test is about before it hands its pipe over.
type wayClient struct {
	near    int
	foreign int // another process's token socket
}

// sendError stops what a client does, for the test to see why.
type sendError struct{ err error }

// scripted begins the names of tests that [playScript] plays.
const scripted = "script: "

func playWay(name string) {
	tests := wayTests()
	if script, ok := strings.CutPrefix(name, scripted); ok {
		tests = []way{playScript(script)}
		tests[0].name = name
	}
	for _, test := range tests {
		if test.name != name {
			continue
		}
		hello := encoded(Hello{Tracking: Dynamic})
		server, client := mustPair(unix.SOCK_STREAM)
		near, far := mustPair(unix.SOCK_SEQPACKET)
		c := &wayClient{near: near, foreign: 4}
		said := func() (said string) {
			defer func() {
				switch failed := recover().(type) {
				case nil:
				case sendError:
					said = failed.err.Error()
				default:
					panic(failed)
				}
			}()
			if !test.hello {
				c.send(hello, nil)
			}
			test.do(c)
			return "sent"
		}()
		exitOn(unix.Sendmsg(client, []byte{PrefaceByte}, unix.UnixRights(far), nil, 0))
		unix.Close(far)
		exitOn(unix.Sendmsg(3, []byte{'s'}, unix.UnixRights(server), nil, 0))
		fmt.Println(said)
		io.Copy(io.Discard, os.Stdin)
		return
	}
	exitOn(errors.New("no such test"))
}

func mustPair(kind int) (a, b int) {
	p, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	exitOn(err)
	return p[0], p[1]
}

func (c *wayClient) send(message []byte, claim *unix.Ucred, fds ...int) {
	var control []byte
	if claim != nil {
		control = unix.UnixCredentials(claim)
	}
	if len(fds) > 0 {
		control = append(control, unix.UnixRights(fds...)...)
	}
	if err := unix.Sendmsg(c.near, message, control, nil, unix.MSG_NOSIGNAL); err != nil {
		panic(sendError{err})
	}
}

// claiming returns this process's credentials with other ids.
func claiming(uid, gid uint32) *unix.Ucred {
	return &unix.Ucred{Pid: int32(os.Getpid()), Uid: uid, Gid: gid}
}

// testWay is what ways in these tests say.
var testWay = &Way{Hops: []token.Hop{{PID: 7, UID: 61031, GID: 61032, Program: "/origin"}, {PID: 8, UID: 61033, GID: 61034, Program: "/between"}}}

// way sends a way as it should be.
func (c *wayClient) way() { c.send(encoded(testWay), claiming(claimedID, claimedID)) }

// pass sends a context with the other process's token socket.
func (c *wayClient) pass(sequence uint64) {
	t, err := token.OfDescriptor(c.foreign)
	exitOn(err)
	c.send(encoded(Context{Sequence: sequence}), claiming(t.UID(), t.GID()), c.foreign)
}

// own sends a context with a token socket of this process's.
func (c *wayClient) own(context Context) {
	a, b := mustPair(unix.SOCK_SEQPACKET)
	defer unix.Close(a)
	defer unix.Close(b)
	c.send(encoded(context), ownClaim(), b)
}

func (c *wayClient) lost(sequence uint64) { c.send(encoded(Lost{Sequence: sequence, Source: 9}), nil) }

// only leaves this process no capabilities but the given ones.
func only(capabilities ...uint) {
	var sets capability.Sets
	for _, c := range capabilities {
		sets.Permitted |= 1 << c
	}
	sets.Effective = sets.Permitted
	if e := sets.Set(); e != 0 {
		exitOn(e)
	}
}

// who a client is.
type who string

const (
	anybody    who = ""                       // whoever runs the tests
	service    who = "root"                   // who can become anybody
	user       who = "user"                   // who can become nobody else
	unshared   who = "root of a namespace"    // unshare -Ur of a user
	pretending who = "claimed in a namespace" // a user that has called itself the claimed id there
	container  who = "root of a container"    // of a namespace with a big mapping, the claimed id in it
)

type way struct {
	name  string
	as    who
	hello bool // the client sends its hello itself
	do    func(c *wayClient)
	said  string // by the kernel, when the client sends; "" for nothing
	// What the receiver makes of it: what comes before the error, if there is one.
	want   []seen
	helloW bool // the way of the hello is testWay
	target error
	says   string
}

// seen is what a test looks at of an Announced.
type seen struct {
	Sequence uint64
	Lost     bool // no token
	Now      bool
	Foreign  bool // the token is that of descriptor 4
	Way      bool // testWay
}

// wayTests is a function because what it lists refers back to it.
func wayTests() []way {
	claim := func(uid, gid uint32) func(c *wayClient) {
		return func(c *wayClient) { c.send(encoded(testWay), claiming(uid, gid)); c.pass(1) }
	}
	passed := seen{Sequence: 1, Foreign: true, Way: true}
	return []way{
		{name: "passed on after a way", as: service, do: func(c *wayClient) { c.way(); c.pass(1) }, want: []seen{passed}},
		{name: "passed on between writes", as: service, do: func(c *wayClient) {
			c.way()
			t, err := token.OfDescriptor(c.foreign)
			exitOn(err)
			c.send(encoded(Context{Sequence: 1, Now: true}), claiming(t.UID(), t.GID()), c.foreign)
		}, want: []seen{{Sequence: 1, Foreign: true, Way: true, Now: true}}},
		{name: "passed on by a process that has not both capabilities any more", as: service, do: func(c *wayClient) {
			c.way()
			only()
			c.pass(1)
		}, said: "operation not permitted"},
		{name: "passed on without a way", as: service, do: func(c *wayClient) { c.pass(1) }, target: ErrUnproven, says: "another process"},
		{name: "passed on without a way, with the claim of one", as: service, do: func(c *wayClient) {
			c.send(encoded(Context{Sequence: 1}), claiming(claimedID, claimedID), c.foreign)
		}, target: ErrUnproven, says: "the sender claims"},
		{name: "one way, two contexts", as: service, do: func(c *wayClient) { c.way(); c.pass(1); c.pass(2) },
			want: []seen{passed}, target: ErrUnproven, says: "another process"},
		{name: "one way, its own context, another's", as: service, do: func(c *wayClient) { c.way(); c.own(Context{Sequence: 1}); c.pass(2) },
			want: []seen{{Sequence: 1, Way: true}}, target: ErrUnproven, says: "another process"},
		{name: "one way, a loss, another's context", as: service, do: func(c *wayClient) { c.way(); c.lost(1); c.pass(2) },
			want: []seen{{Sequence: 1, Lost: true, Now: true, Way: true}}, target: ErrUnproven, says: "another process"},
		{name: "a way each", as: service, do: func(c *wayClient) { c.way(); c.pass(1); c.way(); c.lost(2); c.own(Context{Sequence: 3}) },
			want: []seen{passed, {Sequence: 2, Lost: true, Now: true, Way: true}, {Sequence: 3}}},
		{name: "two ways, the latter counts", as: service, do: func(c *wayClient) {
			c.send(encoded(&Way{Hops: []token.Hop{{PID: 1}}}), claiming(claimedID, claimedID))
			c.way()
			c.pass(1)
		}, want: []seen{passed}},
		{name: "two ways, the latter unproved", as: service, do: func(c *wayClient) { c.way(); c.send(encoded(testWay), ownClaim()); c.pass(1) },
			target: ErrUnproven, says: "has to claim"},
		{name: "way of too many hops", as: service, do: func(c *wayClient) {
			c.send([]byte(wireHops(33, 0)), claiming(claimedID, claimedID))
			c.pass(1)
		}, target: ErrProtocol, says: "33 hops"},
		{name: "longest way", as: service, do: func(c *wayClient) {
			c.send([]byte(wireHops(32, 200)), claiming(claimedID, claimedID))
			c.way()
			c.pass(1)
		}, want: []seen{passed}},
		{name: "way and nothing", as: service, do: func(c *wayClient) { c.way() }},

		{name: "way before the hello", as: service, hello: true, do: func(c *wayClient) { c.way(); c.send(encoded(Hello{}), nil) }, helloW: true},
		{name: "way before the hello, another's context after it", as: service, hello: true, do: func(c *wayClient) {
			c.way()
			c.send(encoded(Hello{}), nil)
			c.pass(1)
		}, helloW: true, target: ErrUnproven, says: "another process"},
		{name: "way and no hello", as: service, hello: true, do: func(c *wayClient) { c.way() }, target: ErrProtocol, says: "without a hello"},
		{name: "way and a context before the hello", as: service, hello: true, do: func(c *wayClient) { c.way(); c.pass(1); c.send(encoded(Hello{}), nil) },
			target: ErrProtocol, says: "not a plain hello"},
		{name: "unproved way before the hello", as: anybody, hello: true, do: func(c *wayClient) {
			c.send(encoded(testWay), ownClaim())
			c.send(encoded(Hello{}), nil)
		}, target: ErrUnproven, says: "has to claim"},
		{name: "loss before the hello", as: anybody, hello: true, do: func(c *wayClient) { c.lost(1); c.send(encoded(Hello{}), nil) },
			target: ErrProtocol, says: "not a plain hello"},

		{name: "way with the uid alone", as: service, do: claim(claimedID, 0), target: ErrUnproven, says: "has to claim"},
		{name: "way with the gid alone", as: service, do: claim(0, claimedID), target: ErrUnproven, says: "has to claim"},
		{name: "way with other ids", as: service, do: claim(claimedID-1, claimedID-1), target: ErrUnproven, says: "it claims 4294967291 and 4294967291"},
		{name: "way with the token's ids", as: service, do: func(c *wayClient) {
			t, err := token.OfDescriptor(c.foreign)
			exitOn(err)
			claim(t.UID(), t.GID())(c)
		}, target: ErrUnproven, says: "has to claim"},
		{name: "way with its own ids", as: anybody, do: func(c *wayClient) { c.send(encoded(testWay), ownClaim()); c.pass(1) },
			target: ErrUnproven, says: "has to claim"},
		{name: "way without a claim", as: anybody, do: func(c *wayClient) { c.send(encoded(testWay), nil); c.pass(1) },
			target: ErrUnproven, says: "sent by process 0"}, // nobody had asked the kernel for any yet
		{name: "way with another pid", as: service, do: func(c *wayClient) {
			cred := claiming(claimedID, claimedID)
			cred.Pid = int32(os.Getppid())
			c.send(encoded(testWay), cred)
			c.pass(1)
		}, target: ErrUnproven, says: "sent by process"},
		{name: "way with a descriptor", as: service, do: func(c *wayClient) {
			c.send(encoded(testWay), claiming(claimedID, claimedID), c.foreign)
			c.pass(1)
		}, target: ErrProtocol, says: "a descriptor came"},
		{name: "way with two descriptors", as: service, do: func(c *wayClient) {
			c.send(encoded(testWay), claiming(claimedID, claimedID), c.foreign, c.foreign)
			c.pass(1)
		}, target: ErrNoDescriptors, says: "descriptors"},
		{name: "way before the hello with a descriptor", as: service, hello: true, do: func(c *wayClient) {
			c.send(encoded(testWay), claiming(claimedID, claimedID), c.foreign)
			c.send(encoded(Hello{}), nil)
		}, target: ErrProtocol, says: "a descriptor came"},

		{name: "a user's way", as: user, do: (*wayClient).way, said: "operation not permitted"},
		{name: "way of a namespace's root", as: unshared, do: (*wayClient).way, said: "invalid argument"},
		{name: "way of a namespace's root with its own ids", as: unshared, do: func(c *wayClient) { c.send(encoded(testWay), claiming(0, 0)) },
			target: ErrUnproven, says: "has to claim"},
		{name: "way of who is called so in a namespace", as: pretending, do: (*wayClient).way, target: ErrUnproven, says: "has to claim"},
		{name: "way of a container's root", as: container, do: (*wayClient).way, target: ErrUnproven, says: "it claims 1292 and 1292"},
		{name: "way of uid 0 without capabilities", as: service, do: func(c *wayClient) { only(); c.way() }, said: "operation not permitted"},
		{name: "way of uid 0 with all other capabilities", as: service, do: func(c *wayClient) {
			sets, e := capability.Get()
			if e != 0 {
				exitOn(e)
			}
			sets.Permitted &^= 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
			sets.Effective = sets.Permitted
			if e := sets.Set(); e != 0 {
				exitOn(e)
			}
			c.way()
		}, said: "operation not permitted"},
		{name: "way with CAP_SETUID alone", as: service, do: func(c *wayClient) { only(unix.CAP_SETUID); c.way() }, said: "operation not permitted"},
		{name: "way with CAP_SETGID alone", as: service, do: func(c *wayClient) { only(unix.CAP_SETGID); c.way() }, said: "operation not permitted"},
		{name: "way with CAP_SETUID alone, the uid alone", as: service, do: func(c *wayClient) { only(unix.CAP_SETUID); claim(claimedID, 0)(c) },
			said: "operation not permitted", target: ErrUnproven, says: "has to claim"},
		{name: "way with both capabilities", as: service, do: func(c *wayClient) { only(unix.CAP_SETUID, unix.CAP_SETGID); c.way(); c.pass(1) },
			want: []seen{passed}},

		{name: "passed on with a claim of its own ids", as: service, do: func(c *wayClient) {
			c.way()
			c.send(encoded(Context{Sequence: 1}), ownClaim(), c.foreign)
		}, target: ErrUnproven, says: "the sender claims uid 0"},
		{name: "passed on with a claim of another gid", as: service, do: func(c *wayClient) {
			t, err := token.OfDescriptor(c.foreign)
			exitOn(err)
			c.way()
			c.send(encoded(Context{Sequence: 1}), claiming(t.UID(), t.GID()+1), c.foreign)
		}, target: ErrUnproven, says: "the sender claims"},
		{name: "passed on without a claim", as: service, do: func(c *wayClient) { c.way(); c.send(encoded(Context{Sequence: 1}), nil, c.foreign) },
			target: ErrUnproven, says: "sent by process 0"},
		{name: "passed on without a token socket", as: service, do: func(c *wayClient) { c.way(); c.send(encoded(Context{Sequence: 1}), ownClaim()) },
			target: ErrUnproven, says: "without a token socket"},
		{name: "passed on with number 0", as: service, do: func(c *wayClient) { c.way(); c.pass(0) }, target: ErrUnproven, says: "does not rise"},
		{name: "an accepted connection passed on", as: service, do: func(c *wayClient) { c.way(); c.connection(false) }, target: ErrUnproven, says: "has a name"},
		{name: "a connected socket passed on", as: service, do: func(c *wayClient) { c.way(); c.connection(true) }, target: ErrUnproven, says: "has a name"},
		{name: "a pair of streams passed on", as: service, do: func(c *wayClient) {
			a, _ := mustPair(unix.SOCK_STREAM)
			c.way()
			c.send(encoded(Context{Sequence: 1}), ownClaim(), a)
		}, target: ErrUnproven, says: "of type 1"},
		{name: "a file passed on", as: service, do: func(c *wayClient) { c.way(); c.send(encoded(Context{Sequence: 1}), ownClaim(), 0) },
			target: ErrUnproven, says: "no socket"},

		{name: "loss", as: anybody, do: func(c *wayClient) { c.lost(1) }, want: []seen{{Sequence: 1, Lost: true, Now: true}}},
		{name: "loss with a descriptor", as: anybody, do: func(c *wayClient) { c.send(encoded(Lost{Sequence: 1}), ownClaim(), c.foreign) },
			target: ErrProtocol, says: "a descriptor came"},
		{name: "loss with a descriptor, after a way", as: service, do: func(c *wayClient) { c.way(); c.send(encoded(Lost{Sequence: 1}), ownClaim(), c.foreign) },
			target: ErrProtocol, says: "a descriptor came"},
		{name: "between writes at a place", as: anybody, do: func(c *wayClient) { c.own(Context{Sequence: 1, Now: true, At: 1}) },
			target: ErrProtocol, says: "is to begin at 1"},
	}
}

// connection sends a context with an end of a connection of this process with itself.
func (c *wayClient) connection(connected bool) {
	address := &net.UnixAddr{Net: "unixpacket", Name: "@guise-test-way-" + strconv.Itoa(os.Getpid())}
	l, err := net.ListenUnix(address.Net, address)
	exitOn(err)
	end, err := net.DialUnix(address.Net, nil, address)
	exitOn(err)
	if !connected {
		end, err = l.AcceptUnix()
		exitOn(err)
	}
	f, err := end.File()
	exitOn(err)
	c.send(encoded(Context{Sequence: 1}), ownClaim(), int(f.Fd()))
}

// foreignToken returns a token socket of a process that has gone since: whoever passes one on answers for it.
func foreignToken(t *testing.T) int {
	t.Helper()
	var as *syscall.Credential
	if os.Geteuid() == 0 {
		as = &syscall.Credential{Uid: 61003, Gid: 61013, Groups: []uint32{61023}}
	}
	fd, _, _, end := tokenAs(t, as)
	end()
	return fd
}

// startWay starts the client of a test and returns the server's end of its pipe, and what the client said about sending.
func startWay(t *testing.T, test way, foreign int) (pipe int, said string, cmd *exec.Cmd, end func()) {
	t.Helper()
	big := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 61001, Size: 1}, {ContainerID: claimedID - 292, HostID: 1000, Size: 293}}
	attr, play := &syscall.SysProcAttr{}, "way"
	needRoot := func() {
		if os.Geteuid() != 0 {
			t.Skip("needs root: the client can become anybody")
		}
	}
	switch test.as {
	case service:
		needRoot()
	case container:
		needRoot()
		attr.Cloneflags, attr.UidMappings, attr.GidMappings = unix.CLONE_NEWUSER, big, big
		attr.Credential = &syscall.Credential{Uid: 0, Gid: 0}
	case user, unshared, pretending:
		if os.Geteuid() == 0 {
			attr.Credential = &syscall.Credential{Uid: 61001, Gid: 61011}
		}
		if test.as != user {
			play = "way-in-namespace"
		}
	}
	env := []string{role + "=" + play, wayTest + "=" + test.name}
	if test.as == pretending {
		env = append(env, "GUISE_TEST_MAP=claimed")
	}
	copied, err := unix.FcntlInt(uintptr(foreign), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(copied), "descriptor 4")
	defer theirs.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	from, cmd, end := otherWith(t, attr, w, []*os.File{theirs}, env...)
	w.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("the client said %q, %v", line, err)
	}
	if strings.HasPrefix(line, "no namespace:") {
		t.Skip("this machine lets users have no namespaces of their own: ", line)
	}
	return receiveDescriptor(t, from), strings.TrimSuffix(line, "\n"), cmd, end
}

func TestWaysAreBelievedOfWhoCouldBecomeAnybody(t *testing.T) {
	for _, test := range wayTests() {
		t.Run(test.name, func(t *testing.T) {
			foreign := foreignToken(t)
			origin, err := token.OfDescriptor(foreign)
			if err != nil {
				t.Fatal(err)
			}
			pipe, said, _, _ := startWay(t, test, foreign)
			want := test.said
			if want == "" {
				want = "sent"
			}
			if said != want {
				t.Errorf("sending: %s, want %s", said, want)
			}
			var got []seen
			var way *Way
			leftover.ByThis(t, func() {
				r, errPreface := ReceivePreface(pipe)
				if errPreface != nil {
					t.Fatal(errPreface)
				}
				defer r.Close()
				if _, way, err = r.Hello(); err != nil {
					return
				}
				if err = r.Follow(pipe); err != nil {
					t.Fatal(err)
				}
				for {
					var a *Announced
					if a, err = r.Next(); a == nil {
						return
					}
					s := seen{Sequence: a.Sequence, Lost: a.Token == nil, Now: a.Now, Way: reflect.DeepEqual(a.Way, testWay)}
					if a.Way != nil && !s.Way {
						t.Errorf("context %d came by way of %+v", a.Sequence, a.Way)
					}
					if a.Token != nil {
						s.Foreign = a.Token.UID() == origin.UID() && a.Token.GID() == origin.GID() && reflect.DeepEqual(a.Token.Groups(), origin.Groups())
						if !s.Foreign && a.Token.UID() != uint32(os.Geteuid()) {
							t.Errorf("context %d is %v", a.Sequence, a.Token)
						}
					}
					got = append(got, s)
					a.Proof.Release()
				}
			})
			if test.helloW != reflect.DeepEqual(way, testWay) || !test.helloW && way != nil {
				t.Errorf("the hello came by way of %+v", way)
			}
			if !errors.Is(err, test.target) || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("the end is %v; want %v that says %q", err, test.target, test.says)
			}
			if !reflect.DeepEqual(got, test.want) {
				b, _ := json.Marshal(got)
				t.Errorf("what came before it is %s, want %+v", b, test.want)
			}
		})
	}
}

// TestWayWithTheKernelsOwnCredentialsIsRefused is about a program that was made to write to an inherited control channel: the
// kernel adds its real ids.
func TestWayWithTheKernelsOwnCredentialsIsRefused(t *testing.T) {
	r, near := receiver(t)
	if _, err := unix.Write(near, encoded(testWay)); err != nil {
		t.Fatal(err)
	}
	if a, err := r.Next(); !errors.Is(err, ErrUnproven) || !strings.Contains(err.Error(), "has to claim") || a != nil {
		t.Errorf("Next = %+v, %v, want ErrUnproven", a, err)
	}
}

// TestLateWayIsKeptForTheNextMessage is about a way that the receiver sees before the message that it is for was sent.
func TestLateWayIsKeptForTheNextMessage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the client can become anybody")
	}
	r, near := receiver(t)
	foreign := foreignToken(t)
	c := &wayClient{near: near, foreign: foreign}
	c.way()
	if a, err := r.Next(); a != nil || err != nil {
		t.Fatalf("Next = %+v, %v, want nothing yet", a, err)
	}
	c.pass(1)
	a, err := r.Next()
	if err != nil || a == nil || !reflect.DeepEqual(a.Way, testWay) {
		t.Fatalf("Next = %+v, %v, want the context that was passed on", a, err)
	}
	a.Proof.Release()
}

// TestWaysWithoutEndDoNotKeepTheReceiver: who may send ways could send nothing else.
func TestWaysWithoutEndDoNotKeepTheReceiver(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the client can become anybody")
	}
	const ways, most = 15, 4
	t.Run("before a context", func(t *testing.T) {
		r, near := receiver(t)
		c := &wayClient{near: near, foreign: foreignToken(t)}
		for range ways {
			c.way()
		}
		c.pass(1)
		looks := 0
		for ; ; looks++ {
			a, err := r.Next()
			if errors.Is(err, ErrLeftOut) && a == nil {
				continue
			}
			if err != nil || a == nil || !reflect.DeepEqual(a.Way, testWay) {
				t.Fatalf("Next = %+v, %v, want the context that was passed on", a, err)
			}
			a.Proof.Release()
			break
		}
		if looks < ways/most {
			t.Errorf("%d ways were taken off the channel in %d looks, want at most %d in one", ways, looks, most)
		}
	})
	t.Run("before a hello", func(t *testing.T) {
		r, near := receiver(t)
		c := &wayClient{near: near}
		for range ways {
			c.way()
		}
		if h, _, err := r.Hello(); !errors.Is(err, ErrProtocol) {
			t.Errorf("Hello = %+v, %v, want ErrProtocol", h, err)
		}
	})
}

// scripts are what a client may send, with a sequence number.
var scripts = map[string]func(c *wayClient, sequence uint64){
	"now":    func(c *wayClient, sequence uint64) { c.own(Context{Sequence: sequence, Now: true}) },
	"placed": func(c *wayClient, sequence uint64) { c.own(Context{Sequence: sequence}) },
	"lost":   (*wayClient).lost,
	"foreign": func(c *wayClient, sequence uint64) {
		c.send(encoded(Context{Sequence: sequence, Now: true}), ownClaim(), c.foreign)
	},
	"file": func(c *wayClient, sequence uint64) {
		c.send(encoded(Context{Sequence: sequence, Now: true}), ownClaim(), 0)
	},
}

// playScript does what a comma-separated list says.
func playScript(script string) way {
	return way{do: func(c *wayClient) {
		for _, line := range strings.Split(script, ", ") {
			name, number, _ := strings.Cut(line, " ")
			sequence, err := strconv.ParseUint(number, 10, 64)
			exitOn(err)
			scripts[name](c, sequence)
		}
	}}
}

// dead is how a client may be when its message is looked at.
var dead = []struct {
	name string
	end  func(t *testing.T, cmd *exec.Cmd, end func())
}{
	{"not yet waited for", func(t *testing.T, cmd *exec.Cmd, _ func()) {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
	}},
	{"waited for", func(_ *testing.T, _ *exec.Cmd, end func()) { end() }},
}

// TestWhatAProcessThatHasGoneAnnounced is about a client that announces and exits before the server looks.
func TestWhatAProcessThatHasGoneAnnounced(t *testing.T) {
	tests := []struct {
		name   string
		sends  string
		want   []uint64 // the numbers that are handed out
		target error
	}{
		{"between writes is left out", "now 1", nil, io.EOF},
		{"many between writes are left out", "now 1, now 2, now 3, now 4, now 5", nil, io.EOF},
		{"with a write is refused", "placed 1", nil, ErrUnproven},
		{"with a write is refused after one between writes", "now 1, placed 2", nil, ErrUnproven},
		{"a loss needs no proof", "now 1, lost 2", []uint64{2}, io.EOF},
		{"one that is left out counts for the order", "now 2, lost 1", nil, ErrUnproven},
		{"one with another's ids is not left out", "foreign 1", nil, ErrUnproven},
		{"one that is no token socket is not left out", "file 1", nil, ErrUnproven},
	}
	for _, test := range tests {
		for _, death := range dead {
			for _, before := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/gone before it is followed: %v", test.name, death.name, before), func(t *testing.T) {
					if test.name == "one with another's ids is not left out" && os.Geteuid() != 0 {
						t.Skip("needs root: the other process has other ids")
					}
					pipe, said, cmd, end := startWay(t, way{name: scripted + test.sends}, foreignToken(t))
					if said != "sent" {
						t.Fatal(said)
					}
					if before {
						death.end(t, cmd, end)
					}
					leftover.ByThis(t, func() {
						r := follows(t, pipe)
						defer r.Close()
						if !before {
							death.end(t, cmd, end)
						}
						var got []uint64
						for {
							a, err := nextThatCounts(r)
							if a == nil {
								if !errors.Is(err, test.target) {
									t.Errorf("the end is %v, want %v", err, test.target)
								}
								break
							}
							got = append(got, a.Sequence)
							a.Proof.Release()
						}
						if !reflect.DeepEqual(got, test.want) {
							t.Errorf("handed out are %v, want %v", got, test.want)
						}
					})
				})
			}
		}
	}
}

// TestManyThatAreLeftOutTakeNoDescriptors has a client leave a queue full of changes when it goes.
func TestManyThatAreLeftOutTakeNoDescriptors(t *testing.T) {
	var script []string
	for i := range 100 {
		script = append(script, fmt.Sprint("now ", i+1))
	}
	pipe, said, _, end := startWay(t, way{name: scripted + strings.Join(script, ", ")}, foreignToken(t))
	if said != "sent" {
		t.Fatal(said)
	}
	r := follows(t, pipe)
	defer r.Close()
	end()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	next, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0) // the lowest that is free
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(next)
	few := unix.Rlimit{Cur: uint64(next) + 10, Max: before.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	a, err := nextThatCounts(r)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if a != nil || err != io.EOF {
		t.Errorf("Next = %+v, %v, want io.EOF", a, err)
	}
}

func init() {
	// gone-no-process, gone-invalid: says what becomes of contexts where the kernel says so about their process.
	for name, errno := range map[string]unix.Errno{"gone-no-process": unix.ESRCH, "gone-invalid": unix.EINVAL} {
		roles[name] = func() {
			server, client := mustPair(unix.SOCK_STREAM)
			near, far := mustPair(unix.SOCK_SEQPACKET)
			exitOn(unix.Sendmsg(near, encoded(Hello{}), nil, nil, 0))
			exitOn(unix.Sendmsg(client, []byte{PrefaceByte}, unix.UnixRights(far), nil, 0))
			r, err := ReceivePreface(server)
			exitOn(err)
			_, _, err = r.Hello()
			exitOn(err)
			exitOn(unix.SetNonblock(r.fd, true))
			exitOn(without.SocketOptionsFail(errno, unix.SO_PEERPIDFD))
			exitOn(r.Follow(server))
			exitOn(announceOwn(near, Context{Sequence: 1, Now: true}))
			a, err := r.Next()
			fmt.Println("between writes:", a, err)
			exitOn(announceOwn(near, Context{Sequence: 2}))
			a, err = r.Next()
			fmt.Println("with a write:", a, errors.Is(err, ErrUnproven))
		}
	}
}

// TestKernelThatHasNoPidfdForTheDead is about kernels before Linux 6.16, which give none for a process that has been waited for.
func TestKernelThatHasNoPidfdForTheDead(t *testing.T) {
	for _, play := range []string{"gone-no-process", "gone-invalid"} {
		t.Run(play, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", role+"="+play)
			cmd.Stderr = os.Stderr
			const want = "between writes: <nil> a context that does not count\nwith a write: <nil> true\n"
			if out, err := cmd.Output(); err != nil || string(out) != want {
				t.Errorf("it says %q, %v, want %q", out, err, want)
			}
		})
	}
}

// nextThatCounts returns the next context that is not left out.
func nextThatCounts(r *Receiver) (*Announced, error) {
	for {
		a, err := r.Next()
		if err != ErrLeftOut {
			return a, err
		}
	}
}

// follows takes over the control channel that comes over a pipe, which stays the caller's to close, up to where contexts come.
func follows(t *testing.T, pipe int) *Receiver {
	t.Helper()
	r, err := ReceivePreface(pipe)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = r.Hello(); err == nil {
		err = r.Follow(pipe)
	}
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	return r
}
