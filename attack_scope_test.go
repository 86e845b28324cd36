package guise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/without"
)

// These tests attack a server while it is in a scope of the client's. The clients are processes of their own that know no good
// manners.

// ids are the effective ones of a thread.
type ids struct{ uid, gid uint32 }

var (
	anAlice  = ids{61001, 61001}
	aNobody  = ids{4294967293, 4294967293}
	aMachine = ids{0, 0} // its root
)

// ownIDs returns the calling thread's, of one moment: the thread may become another between two system calls.
func ownIDs() ids {
	look := func() ids {
		uid, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
		gid, _, _ := syscall.RawSyscall(unix.SYS_GETEGID, 0, 0, 0)
		return ids{uint32(uid), uint32(gid)}
	}
	for {
		if first := look(); first == look() {
			return first
		}
	}
}

// scopeIn is a scope in progress that a goroutine of its own watches all the time.
type scopeIn struct {
	t      *testing.T
	scope  *Scope
	tid    int
	waits  chan waitFor
	left   chan error
	closed bool
}

// waitFor is what a scope is to become, by way of what.
type waitFor struct {
	now  *ids // not nil: only look
	to   ids
	from []ids
	done chan error
}

// entersScope has the server act for its client, until leave.
func entersScope(t *testing.T, server *Conn) *scopeIn {
	t.Helper()
	in := &scopeIn{t: t, waits: make(chan waitFor), left: make(chan error, 1)}
	entered := make(chan struct{})
	go func() {
		defer close(in.left)
		in.left <- server.RunAsClient(func(s *Scope) error {
			in.scope, in.tid = s, unix.Gettid()
			close(entered)
			for w := range in.waits {
				w.done <- w.watch()
			}
			return nil
		})
	}()
	select {
	case <-entered:
	case err := <-in.left:
		t.Fatalf("entering a scope: %v", err)
	}
	t.Cleanup(in.leave)
	return in
}

func (w waitFor) watch() error {
	if w.now != nil {
		*w.now = ownIDs()
		return nil
	}
	for begun := time.Now(); ; runtime.Gosched() {
		now := ownIDs()
		if now == w.to {
			return nil
		}
		known := false
		for _, from := range w.from {
			known = known || now == from
		}
		if !known {
			return fmt.Errorf("the scope's thread has become %v, on the way from %v to %v", now, w.from, w.to)
		}
		if time.Since(begun) > patience/4 {
			return fmt.Errorf("after %v the scope's thread is %v still, and has to become %v", patience/4, now, w.to)
		}
	}
}

// becomes waits until the scope's thread is to, and has it be nobody else but from meanwhile.
func (in *scopeIn) becomes(when string, to ids, from ...ids) {
	in.t.Helper()
	w := waitFor{to: to, from: from, done: make(chan error)}
	in.waits <- w
	if err := <-w.done; err != nil {
		in.t.Errorf("%s: %v", when, err)
	}
}

// is says that it is so at once.
func (in *scopeIn) is(when string, now ids) {
	in.t.Helper()
	in.becomes(when, now)
}

// now returns what the scope's thread is.
func (in *scopeIn) now() (now ids) {
	w := waitFor{now: &now, done: make(chan error)}
	in.waits <- w
	<-w.done
	return now
}

func (in *scopeIn) leave() {
	in.t.Helper()
	if in.closed {
		return
	}
	in.closed = true
	close(in.waits)
	if err := <-in.left; err != nil {
		in.t.Errorf("leaving a scope: %v", err)
	}
}

// settled has the server take in all that its client has announced. The scope's thread has followed it when this returns.
func settled(server *Conn, in *scopeIn, want ids) {
	in.t.Helper()
	if _, err := server.Client(); err != nil {
		in.t.Errorf("asking who the client is: %v", err)
	}
	in.is("after all that the client said was taken in", want)
}

// whileAttacked opens the connection that the process makes, enters a scope for it that is before, and calls f. It looks for what
// is left behind of the server's.
func whileAttacked(t *testing.T, config *ListenConfig, attack func(path string) *rawProcess, before ids, f func(p *rawProcess, server *Conn, in *scopeIn)) {
	t.Helper()
	l := listenAt(t, config)
	leftover.ByThis(t, func() {
		p := attack(l.Addr().String())
		server := acceptFrom(t, l)
		defer server.Close()
		var b [1]byte
		if n, err := server.Read(b[:]); n != 1 || err != nil || b[0] != '1' {
			t.Fatalf("the first read: %q, %v", b[:n], err)
		}
		if got := server.QoS().Tracking; got != Dynamic {
			t.Fatalf("tracking is %v", got)
		}
		in := entersScope(t, server)
		defer in.leave()
		in.is("at first", before)
		f(p, server, in)
		in.leave()
		server.Close()
		if !p.ended {
			p.end()
		}
		discard.Wait()
	})
}

// entriesFail looks whether nobody acts for the client any more.
func entriesFail(t *testing.T, server *Conn, says string) {
	t.Helper()
	err := server.RunAsClient(func(*Scope) error { t.Errorf("a function ran as %v", ownIDs()); return nil })
	if !errors.Is(err, ErrContextLost) || !strings.Contains(err.Error(), says) {
		t.Errorf("the next entry: %v, want ErrContextLost that says %q", err, says)
	}
	if n, err := server.Read(make([]byte, 1)); n != 0 || !errors.Is(err, ErrContextLost) {
		t.Errorf("the next read: %d bytes, %v", n, err)
	}
}

// attackOnScope is what a client does to a server's scope in progress.
type attackOnScope struct {
	name   string
	attr   *syscall.SysProcAttr // nil: an ordinary user
	before func(c *rawClient)   // it connects
	do     func(c *rawClient)
	says   string // what the server's error says; empty if the scope stays what it is
	told   string // what the client hears
}

// dropsTo makes this process, which is root, an ordinary user's for good, but for the saved uid.
func dropsTo(uid, saved int) {
	must(syscall.Setgroups([]int{61101}))
	must(syscall.Setresgid(61001, 61001, 61001))
	become(uid, uid, saved)
}

// strangerChild starts a process that is root and waits, with the given descriptors from 3 on, until it is called.
func (c *rawClient) strangerChild(role string, fds ...int) (call func()) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), rawRole+"="+role)
	cmd.Stderr = os.Stderr
	for _, fd := range fds {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(must1(unix.Dup(fd))), role))
	}
	stdin, stdout := must1(cmd.StdinPipe()), must1(cmd.StdoutPipe())
	must(cmd.Start())
	must1(io.ReadFull(stdout, make([]byte, 1)))
	c.ends = append(c.ends, func() { stdin.Close(); must(cmd.Wait()) })
	return func() {
		must1(stdin.Write([]byte{'\n'}))
		must1(io.ReadFull(stdout, make([]byte, 1)))
	}
}

// called is a stranger's side of that.
func called(f func()) {
	must1(os.Stdout.Write([]byte{'\n'}))
	if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err == io.EOF {
		return
	}
	f()
	must1(os.Stdout.Write([]byte{'\n'}))
	io.Copy(io.Discard, os.Stdin)
}

var _ = addRole("stranger that announces", func() {
	c := &rawClient{near: 3}
	called(func() { must(c.sayAs(c.claim(), rawNow(1, 0), c.token())) })
})

var _ = addRole("stranger that announces as another", func() {
	c := &rawClient{near: 3}
	called(func() {
		must(syscall.Setresgid(61002, 61002, 61002))
		must(syscall.Setresuid(61002, 61002, 61002))
		must(c.sayAs(c.claim(), rawNow(1, 0), c.token()))
	})
})

var _ = addRole("stranger that makes a token socket", func() {
	must(unix.Sendmsg(3, []byte{'t'}, unix.UnixRights((&rawClient{}).token()), nil, 0))
	called(func() {})
})

func attacksOnScope() []attackOnScope {
	// now sends a context between writes.
	now := func(name, says string, token func(c *rawClient) int) attackOnScope {
		return attackOnScope{name: name, says: says, told: toldProof, do: func(c *rawClient) {
			must(c.sayAs(c.claim(), rawNow(1, 0), token(c)))
		}}
	}
	// mayNot checks that the kernel does not let this process claim ids.
	mayNot := func(c *rawClient, uid, gid uint32, message string, fds ...int) {
		if err := c.sayAs(&unix.Ucred{Pid: int32(os.Getpid()), Uid: uid, Gid: gid}, message, fds...); err != unix.EPERM && err != unix.EINVAL {
			panic(fmt.Sprintf("the kernel lets this process claim uid %d and gid %d: %v", uid, gid, err))
		}
	}
	var old, far int // what was made before
	var call func()
	foreignRoots := func(c *rawClient) {
		a, b := rawPair(unix.SOCK_SEQPACKET)
		c.strangerChild("stranger that makes a token socket", b)
		old = receiveDescriptor(a)
		dropsTo(61001, 61001)
	}
	mapping := func(host int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: host, Size: 1}}
	}
	ownNamespace := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: mapping(61001), GidMappings: mapping(61001),
		Credential: &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
	}
	return []attackOnScope{
		now("an accepted connection as token socket", "has a name", func(*rawClient) int { return rawAccepted(rawAbstract("guise-attack")) }),
		now("an accepted connection on a name of NUL bytes", "has a name", func(*rawClient) int { return rawAccepted("\x00\x00" + rawAbstract("")) }),
		now("the pipe itself as token socket", "the kernel does not prove", func(c *rawClient) int { return c.pipe }),
		now("another process's token socket", "another process", (*rawClient).foreign),
		{name: "another user's token socket, that of a process of root's", attr: asRoot(), says: "claims uid 61001", told: toldProof, before: foreignRoots,
			do: func(c *rawClient) {
				mayNot(c, 0, 0, rawNow(1, 0), old)
				must(c.sayAs(c.claim(), rawNow(1, 0), old))
			}},
		{name: "another user's token socket, with the kernel's own credentials", attr: asRoot(), says: "claims uid 61001", told: toldProof, before: foreignRoots,
			do: func(c *rawClient) { c.say(rawNow(1, 0), old) }},
		{name: "an old token socket, of an id that was given up since", attr: asRoot(), says: "claims uid 61001", told: toldProof,
			before: func(*rawClient) { dropsTo(61001, 61002) },
			do: func(c *rawClient) {
				become(-1, 61002, -1)
				old := c.token()
				become(61001, 61001, 61001)
				mayNot(c, 61002, 61001, rawNow(1, 0), old)
				must(c.sayAs(c.claim(), rawNow(1, 0), old))
			}},
		{name: "an old token socket, without a claim", attr: asRoot(), says: "claims uid 61001", told: toldProof,
			before: func(*rawClient) { dropsTo(61001, 61002) },
			do: func(c *rawClient) {
				become(-1, 61002, -1)
				old := c.token()
				become(61001, 61001, 61001)
				c.say(rawNow(1, 0), old) // the kernel adds the real ids
			}},
		{name: "a way without privilege, and another process's token socket", says: "has to claim", told: toldProof,
			do: func(c *rawClient) {
				foreign := c.foreign()
				mayNot(c, rawClaimed, rawClaimed, rawWay(1))
				must(c.sayAs(c.claim(), rawWay(1)))
				mustUnlessEnded(c.sayAs(c.claim(), rawNow(1, 0), foreign))
			}},
		{name: "a way without privilege, and its own token socket", says: "has to claim", told: toldProof,
			do: func(c *rawClient) {
				c.say(rawWay(3))
				mustUnlessEnded(c.sayAs(c.claim(), rawNow(1, 0), c.token()))
			}},
		{name: "a way of root of a namespace of its own", attr: ownNamespace, says: "has to claim", told: toldProof,
			do: func(c *rawClient) {
				mayNot(c, rawClaimed, rawClaimed, rawWay(1))
				must(c.sayAs(c.claim(), rawWay(1)))
				mustUnlessEnded(c.sayAs(c.claim(), rawNow(1, 0), c.token()))
			}},
		{name: "a replayed announcement", says: "does not rise", told: toldProof,
			do: func(c *rawClient) {
				token := c.token()
				must(c.sayAs(c.claim(), rawNow(5, 0), token))
				mustUnlessEnded(c.sayAs(c.claim(), rawNow(5, 0), token))
			}},
		{name: "the control channel in the hands of root's process", attr: asRoot(), says: "sent by process", told: toldProof,
			before: func(c *rawClient) { call = c.strangerChild("stranger that announces", c.near); dropsTo(61001, 61001) },
			do:     func(*rawClient) { call() }},
		{name: "the control channel in the hands of another user's process", attr: asRoot(), says: "sent by process", told: toldProof,
			before: func(c *rawClient) {
				call = c.strangerChild("stranger that announces as another", c.near)
				dropsTo(61001, 61001)
			},
			do: func(*rawClient) { call() }},

		{name: "root of a namespace of its own claims uid 0", attr: ownNamespace,
			do: func(c *rawClient) {
				if os.Geteuid() != 0 {
					panic("not root of its namespace")
				}
				must(c.sayAs(c.claim(), rawNow(1, 0), c.token()))
				must(c.announce(2, c.token(), c.claim()))
			}},
		{name: "the pipe in the hands of a process of other users, which writes", attr: asRoot(),
			before: func(c *rawClient) {
				a, b := rawPair(unix.SOCK_SEQPACKET)
				call, far = c.strangerChild("stranger that is handed the pipe", b), a
				dropsTo(61001, 61001)
			},
			do: func(c *rawClient) {
				must(unix.Sendmsg(far, []byte{'p'}, unix.UnixRights(c.pipe), nil, 0))
				call()
			}},
	}
}

var _ = addRole("stranger that is handed the pipe", func() {
	called(func() {
		must(unix.Dup3(receiveDescriptor(3), 9, unix.O_CLOEXEC))
		for _, uid := range []int{61002, 0, 61003, 0, 61001} {
			must1(unix.Write(9, []byte("s")))
			must(syscall.Setresgid(-1, uid, -1))
			must(syscall.Setresuid(-1, uid, -1))
			must1(unix.Write(9, []byte("s")))
			must(syscall.Setresuid(-1, 0, -1))
		}
	})
})

func (a attackOnScope) play() {
	c := &rawClient{}
	c.near, c.far = rawPair(unix.SOCK_SEQPACKET)
	if a.before != nil {
		a.before(c)
	}
	c.pipe = rawConnect(os.Getenv("GUISE_TEST_PATH"))
	for _, fd := range []int{c.pipe, c.near} {
		must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)}))
	}
	c.open()
	c.await()
	a.do(c)
	if a.says != "" {
		c.hear()
		return
	}
	fmt.Println("done")
	io.Copy(io.Discard, os.Stdin)
	for _, end := range c.ends {
		end()
	}
}

var _ = func() struct{} {
	for _, a := range attacksOnScope() {
		addRole("attack: "+a.name, a.play)
	}
	return struct{}{}
}()

func TestAttackOnAScopeInProgress(t *testing.T) {
	needRoot(t, "it acts as others")
	for _, a := range attacksOnScope() {
		t.Run(a.name, func(t *testing.T) {
			attr := a.attr
			if attr == nil {
				attr = asUser(61001, 61001, 61101)
			}
			if attr.Cloneflags != 0 {
				if err := without.Namespaces(attr.Cloneflags); err != nil {
					t.Skipf("this machine lets nobody make the namespaces %#x: %v", attr.Cloneflags, err)
				}
			}
			start := func(path string) *rawProcess {
				return startRaw(t, "attack: "+a.name, attr, []string{"GUISE_TEST_PATH=" + path})
			}
			whileAttacked(t, nil, start, anAlice, func(p *rawProcess, server *Conn, in *scopeIn) {
				p.resume()
				if a.says != "" {
					in.becomes("after the attack", aNobody, anAlice)
					entriesFail(t, server, a.says)
					if told := p.end(); told != a.told {
						t.Errorf("the client %q, want %q", told, a.told)
					}
					return
				}
				if line := p.out.line(); line != "done" {
					t.Fatalf("the client says %q", line)
				}
				settled(server, in, anAlice)
				if strings.Contains(a.name, "writes") {
					var b [10]byte
					if n, err := io.ReadFull(server, b[:]); n != len(b) || err != nil {
						t.Errorf("reading what the others wrote: %q, %v", b[:n], err)
					}
					settled(server, in, anAlice)
				}
				if err := server.RunAsClient(func(*Scope) error {
					if now := ownIDs(); now != anAlice {
						t.Errorf("the next scope is %v's", now)
					}
					return nil
				}); err != nil {
					t.Errorf("the next entry: %v", err)
				}
			})
		})
	}
}

// TestAttackWithRightsThatWereDroppedForGood has a client that was root announce between writes that it is root again.
func TestAttackWithRightsThatWereDroppedForGood(t *testing.T) {
	needRoot(t, "the client changes its ids")
	for name := range replays {
		t.Run(name, func(t *testing.T) {
			start := func(path string) *rawProcess {
				return startRaw(t, "replay: "+name, asRoot(), []string{"GUISE_TEST_PATH=" + path})
			}
			whileAttacked(t, nil, start, aMachine, func(p *rawProcess, server *Conn, in *scopeIn) {
				p.resume()
				in.becomes("after the client dropped its rights", anAlice, aMachine)
				p.resume()
				in.becomes("after the client announced that it is root", aNobody, anAlice)
				entriesFail(t, server, "")
				if told := p.end(); told != toldProof {
					t.Errorf("the client %q, want %q", told, toldProof)
				}
			})
		})
	}
}

// replays announce the token socket old, of root.
var replays = map[string]func(c *rawClient, old int){
	"with its ids of now":             func(c *rawClient, old int) { must(c.sayAs(c.claim(), rawNow(2, 0), old)) },
	"with the kernel's credentials":   func(c *rawClient, old int) { c.say(rawNow(2, 0), old) },
	"as if it went with a write":      func(c *rawClient, old int) { must(c.announce(2, old, c.claim())) },
	"after a way":                     func(c *rawClient, old int) { c.say(rawWay(1)); mustUnlessEnded(c.sayAs(c.claim(), rawNow(2, 0), old)) },
	"after a way that it said before": func(c *rawClient, old int) { must(c.sayAs(c.claim(), rawNow(3, 0), old)) },
}

var _ = func() struct{} {
	for name, replay := range replays {
		addRole("replay: "+name, func() {
			c := newRawClient()
			old := c.token()
			c.open()
			c.await()
			sequence := uint64(1)
			if strings.HasSuffix(name, "said before") {
				c.way()
				must(c.sayAs(c.claim(), rawNow(sequence, 0), c.token()))
				sequence++
			}
			dropsTo(61001, 61001)
			must(c.sayAs(c.claim(), rawNow(sequence, 0), c.token()))
			c.await()
			if err := c.sayAs(&unix.Ucred{Pid: int32(os.Getpid())}, rawNow(2, 0), old); err != unix.EPERM {
				panic(fmt.Sprint("the kernel lets this process claim to be root: ", err))
			}
			replay(c, old)
			c.hear()
		})
	}
	return struct{}{}
}()
