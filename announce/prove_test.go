package announce

import (
	"errors"
	"github.com/guise-project/guise/internal/leftover"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/without"
	"github.com/guise-project/guise/token"
)

// roles are what the test binary does as another process. Descriptor 3 is a socket of the test's.
var roles = map[string]func(){
	// token: makes a token socket, sends it and waits for the end of its standard input.
	"token": func() {
		_, far, err := socketpair()
		if err == nil {
			err = unix.Sendmsg(3, []byte{'t'}, unix.UnixRights(far), nil, 0)
		}
		exitOn(err)
		io.Copy(io.Discard, os.Stdin)
	},
	// no-pidfd, no-pidfs-answer: says what Follow does where the kernel lacks SO_PEERPIDFD, or is out of descriptors.
	"no-pidfd": func() {
		exitOn(without.SocketOptions(unix.SO_PEERPIDFD))
		os.Stdout.WriteString(followSelf())
	},
	"broken-pidfd": func() {
		exitOn(without.SocketOptionsFail(unix.EPERM, unix.SO_PEERPIDFD))
		os.Stdout.WriteString(followSelf())
	},
	"no-descriptors": func() {
		exitOn(without.SocketOptionsFail(unix.EMFILE, unix.SO_PEERPIDFD))
		os.Stdout.WriteString(followSelf())
	},
}

func exitOn(err error) {
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(2)
	}
}

// followSelf says in one word what Follow of a pipe to this process itself comes to, and whether a context is proved then.
func followSelf() string {
	near, far, err := socketpair()
	exitOn(err)
	r := &Receiver{fd: near, peer: peer{pid: int32(os.Getpid())}}
	word := ""
	switch err := r.Follow(far); {
	case err == nil:
		word = "followed"
	case errors.Is(err, ErrCannotProve):
		word = "cannot-prove"
	case errors.Is(err, ErrNoDescriptors):
		word = "no-descriptors"
	default:
		word = "error"
	}
	if _, err := r.peer.prove(far, ownClaim(), false); !errors.Is(err, ErrUnproven) && !errors.Is(err, ErrNoDescriptors) {
		word += " and proves"
	}
	return word
}

func ownClaim() *unix.Ucred {
	return &unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
}

// self returns this process as the peer of a pipe.
func self(t *testing.T) peer {
	t.Helper()
	a, _ := pair(t, unix.SOCK_STREAM)
	return peerOf(t, a)
}

func peerOf(t *testing.T, fd int) peer {
	t.Helper()
	inode, pidfd, err := peerProcess(fd)
	if errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, errNoPidfs) {
		t.Skip("this kernel can't prove contexts: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(pidfd)
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		t.Fatal(err)
	}
	return peer{pid: cred.Pid, inode: inode}
}

func socket(t *testing.T, family, kind int) int {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// abstract returns a name that no file stands for, of this process only.
func abstract(s string) string { return "\x00" + s + strconv.Itoa(os.Getpid()) }

func rawAddress(name string) (address *unix.RawSockaddrUnix, length uintptr) {
	address = &unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	for i := range len(name) {
		address.Path[i] = int8(name[i])
	}
	return address, unsafe.Sizeof(address.Family) + uintptr(len(name))
}

func bind(t *testing.T, fd int, name string) {
	t.Helper()
	address, length := rawAddress(name)
	if _, _, e := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(address)), length); e != 0 {
		t.Fatalf("bind %q: %v", name, e)
	}
}

// named returns a function that makes one end of a socketpair and gives it a name.
func named(name string) func(t *testing.T) int {
	return func(t *testing.T) int {
		a, _ := pair(t, unix.SOCK_SEQPACKET)
		bind(t, a, name)
		return a
	}
}

// peerNamed is named, but for the other end.
func peerNamed(name string) func(t *testing.T) int {
	return func(t *testing.T) int {
		a, b := pair(t, unix.SOCK_SEQPACKET)
		bind(t, b, name)
		return a
	}
}

func connection(t *testing.T, name string) (accepted, connected int) {
	t.Helper()
	l := socket(t, unix.AF_UNIX, unix.SOCK_SEQPACKET)
	bind(t, l, name)
	if err := unix.Listen(l, 1); err != nil {
		t.Fatal(err)
	}
	connected = socket(t, unix.AF_UNIX, unix.SOCK_SEQPACKET)
	address, length := rawAddress(name)
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(connected), uintptr(unsafe.Pointer(address)), length); e != 0 {
		t.Fatalf("connect %q: %v", name, e)
	}
	accepted, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(accepted) })
	return accepted, connected
}

func accepted(name string) func(t *testing.T) int {
	return func(t *testing.T) int { a, _ := connection(t, name); return a }
}

func connected(name string) func(t *testing.T) int {
	return func(t *testing.T) int { _, c := connection(t, name); return c }
}

func ownToken(t *testing.T) int {
	a, _ := pair(t, unix.SOCK_SEQPACKET)
	return a
}

// TestTokenSocketProvesOnlyTheClientsOwnContext has one case for each rule by which a token socket is believed. All but the rule about
// who made it hold for one that is passed on, too.
func TestTokenSocketProvesOnlyTheClientsOwnContext(t *testing.T) {
	me, claim := self(t), ownClaim
	other := func(change func(*unix.Ucred)) func() *unix.Ucred {
		return func() *unix.Ucred {
			c := ownClaim()
			change(c)
			return c
		}
	}
	tests := []struct {
		name  string
		make  func(t *testing.T) int
		peer  peer
		claim func() *unix.Ucred
		says  string
	}{
		{"stream socketpair", func(t *testing.T) int { a, _ := pair(t, unix.SOCK_STREAM); return a }, me, claim, "of type 1"},
		{"datagram socketpair", func(t *testing.T) int { a, _ := pair(t, unix.SOCK_DGRAM); return a }, me, claim, "of type 2"},
		{"TCP socket", func(t *testing.T) int { return socket(t, unix.AF_INET, unix.SOCK_STREAM) }, me, claim, "of family 2"},
		{"file", func(t *testing.T) int {
			fd, err := unix.Open("/dev/null", unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			return fd
		}, me, claim, "no socket"},
		{"unconnected socket", func(t *testing.T) int { return socket(t, unix.AF_UNIX, unix.SOCK_SEQPACKET) }, me, claim, "not connected"},
		{"name of its own", named(abstract("guise-test-own")), me, claim, "its own side has a name"},
		{"name of its own that begins with NUL", named("\x00" + abstract("")), me, claim, "its own side has a name"},
		{"peer's name", peerNamed(abstract("guise-test-peer")), me, claim, "its peer's side has a name"},
		{"peer's name that begins with NUL", peerNamed("\x00" + abstract("")), me, claim, "its peer's side has a name"},
		{"accepted connection", accepted(abstract("guise-test-accepted")), me, claim, "has a name"},
		{"accepted connection on a name that begins with NUL", accepted("\x00" + abstract("")), me, claim, "has a name"},
		{"connected socket", connected(abstract("guise-test-connected")), me, claim, "has a name"},
		{"later process with the same pid", ownToken, peer{pid: me.pid, inode: me.inode + 1}, claim, "another process"},
		{"process that could not be asked for", ownToken, peer{pid: me.pid}, claim, "another process"},
		{"no credentials", ownToken, me, func() *unix.Ucred { return nil }, "without credentials"},
		{"sent by another process", ownToken, me, other(func(c *unix.Ucred) { c.Pid++ }), "sent by process"},
		{"made by another process than the pipe's", ownToken, peer{pid: me.pid + 1, inode: me.inode}, other(func(c *unix.Ucred) { c.Pid++ }), "another process"},
		{"claim of another uid", ownToken, me, other(func(c *unix.Ucred) { c.Uid++ }), "claims uid"},
		{"claim of another gid", ownToken, me, other(func(c *unix.Ucred) { c.Gid++ }), "claims uid"},
	}
	for _, test := range tests {
		for _, passedOn := range []bool{false, true} {
			name := test.name
			if passedOn {
				name += ", passed on"
			}
			t.Run(name, func(t *testing.T) {
				fd := test.make(t)
				var proved *token.Token
				var err error
				leftover.ByThis(t, func() { proved, err = test.peer.prove(fd, test.claim(), passedOn) })
				if passedOn && test.says == "another process" {
					if err != nil || int(proved.UID()) != os.Geteuid() {
						t.Errorf("prove = %v, %v, want this process's own context", proved, err)
					}
				} else if !errors.Is(err, ErrUnproven) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("prove = %v, %v; want an error that wraps ErrUnproven and says %q", proved, err, test.says)
				}
			})
		}
	}
}

func TestTokenSocketProvesTheContextThatMadeIt(t *testing.T) {
	me, fd := self(t), ownToken(t)
	leftover.ByThis(t, func() {
		proved, err := me.prove(fd, ownClaim(), false)
		if err != nil {
			t.Fatal(err)
		}
		if int(proved.UID()) != os.Geteuid() || int(proved.GID()) != os.Getegid() || proved.Source() != (token.Source{Kind: token.FromProof, PID: os.Getpid()}) {
			t.Errorf("it proves %v from %+v", proved, proved.Source())
		}
	})
}

// other starts the test binary in a role, with one end of a socketpair as descriptor 3; the other end is the caller's. stop ends
// it; wait waits until it is dead without taking its status.
func other(t *testing.T, name string, cred *syscall.Credential) (fd int, cmd *exec.Cmd, end func()) {
	t.Helper()
	var attr *syscall.SysProcAttr
	if cred != nil {
		attr = &syscall.SysProcAttr{Credential: cred}
	}
	return otherWith(t, attr, nil, nil, role+"="+name)
}

// otherWith is other with more to choose. The files are descriptors from 4 on.
func otherWith(t *testing.T, attr *syscall.SysProcAttr, out *os.File, files []*os.File, env ...string) (fd int, cmd *exec.Cmd, end func()) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]) })
	theirs := os.NewFile(uintptr(p[1]), "descriptor 3")
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = append([]*os.File{theirs}, files...)
	cmd.SysProcAttr = attr
	if out != nil {
		cmd.Stdout = out
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	ended := false
	end = func() {
		if !ended {
			ended = true
			stdin.Close()
			cmd.Wait()
		}
	}
	t.Cleanup(end)
	return p[0], cmd, end
}

// tokenOf returns a token socket that another process made, with what it is as a peer.
func tokenOf(t *testing.T) (fd int, p peer, cmd *exec.Cmd, end func()) { return tokenAs(t, nil) }

// tokenAs is tokenOf for a process with the given ids.
func tokenAs(t *testing.T, cred *syscall.Credential) (fd int, p peer, cmd *exec.Cmd, end func()) {
	t.Helper()
	from, cmd, end := other(t, "token", cred)
	fd = receiveDescriptor(t, from)
	return fd, peerOf(t, fd), cmd, end
}

// receiveDescriptor receives a message of one byte with a descriptor, which is closed when the test ends.
func receiveDescriptor(t *testing.T, from int) int {
	t.Helper()
	var b [1]byte
	control := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(from, b[:], control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		t.Fatalf("the other process sent %d control messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]) })
	return fds[0]
}

func claimOf(p peer) *unix.Ucred {
	c := ownClaim()
	c.Pid = p.pid
	return c
}

func TestAnotherProcesssTokenSocketIsRefused(t *testing.T) {
	fd, p, _, _ := tokenOf(t)
	if _, err := p.prove(fd, claimOf(p), false); err != nil {
		t.Errorf("of the pipe's own process: %v", err)
	}
	if proved, err := self(t).prove(fd, ownClaim(), false); !errors.Is(err, ErrUnproven) {
		t.Errorf("of another process: %v, %v, want ErrUnproven", proved, err)
	}
}

func TestDeadProcesssTokenSocketIsRefused(t *testing.T) {
	t.Run("not yet waited for", func(t *testing.T) {
		fd, p, cmd, _ := tokenOf(t)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
		leftover.ByThis(t, func() {
			if proved, err := p.prove(fd, claimOf(p), false); !errors.Is(err, ErrUnproven) {
				t.Errorf("prove = %v, %v, want ErrUnproven", proved, err)
			}
		})
	})
	t.Run("waited for", func(t *testing.T) {
		fd, p, _, end := tokenOf(t)
		end()
		leftover.ByThis(t, func() {
			if proved, err := p.prove(fd, claimOf(p), false); !errors.Is(err, ErrUnproven) {
				t.Errorf("prove = %v, %v, want ErrUnproven", proved, err)
			}
		})
	})
}

func TestFollowSaysWhatTheKernelLacks(t *testing.T) {
	for role, want := range map[string]string{
		"no-pidfd":       "cannot-prove",
		"broken-pidfd":   "error",
		"no-descriptors": "no-descriptors",
	} {
		t.Run(role, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "GUISE_TEST_ROLE="+role)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil || string(out) != want {
				t.Errorf("Follow: %q, %v, want %q", out, err, want)
			}
		})
	}
}

// announceOwn sends a context over the control channel near as a client does, with this process's own token socket.
func announceOwn(near int, c Context) error {
	a, b, err := socketpair()
	if err != nil {
		return err
	}
	defer unix.Close(a)
	defer unix.Close(b)
	return unix.Sendmsg(near, c.encode(), append(unix.UnixCredentials(ownClaim()), unix.UnixRights(b)...), nil, unix.MSG_NOSIGNAL)
}

func TestSequenceNumbersHaveToRise(t *testing.T) {
	tests := []struct {
		name      string
		sequences []uint64 // the last is refused
	}{
		{"zero", []uint64{0}},
		{"again", []uint64{1, 1}},
		{"falling", []uint64{1, 7, 6}},
		{"after the highest", []uint64{1<<64 - 1, 0}},
	}
	context := func(near int, s uint64) error { return announceOwn(near, Context{Sequence: s}) }
	between := func(near int, s uint64) error { return announceOwn(near, Context{Sequence: s, Now: true}) }
	lost := func(near int, s uint64) error {
		return unix.Sendmsg(near, Lost{Sequence: s}.encode(), nil, nil, unix.MSG_NOSIGNAL)
	}
	kinds := []struct {
		name  string
		sends []func(near int, s uint64) error // in turn
	}{
		{"contexts", []func(int, uint64) error{context}},
		{"contexts between writes", []func(int, uint64) error{between}},
		{"losses", []func(int, uint64) error{lost}},
		{"contexts and losses", []func(int, uint64) error{context, lost}},
		{"losses and contexts", []func(int, uint64) error{lost, between, context}},
	}
	for _, test := range tests {
		for _, kind := range kinds {
			t.Run(test.name+"/"+kind.name, func(t *testing.T) {
				r, near := receiver(t)
				leftover.ByThis(t, func() {
					for i, s := range test.sequences {
						if err := kind.sends[i%len(kind.sends)](near, s); err != nil {
							t.Fatal(err)
						}
						a, err := r.Next()
						if i == len(test.sequences)-1 {
							if !errors.Is(err, ErrUnproven) || !strings.Contains(err.Error(), "does not rise") || a != nil {
								t.Errorf("Next = %+v, %v, want ErrUnproven", a, err)
							}
							return
						}
						if err != nil || a == nil || a.Sequence != s {
							t.Fatalf("Next = %+v, %v, want number %d", a, err, s)
						}
						a.Proof.Release()
					}
				})
			})
		}
	}
}

func TestContextNeedsExactlyOneDescriptor(t *testing.T) {
	context := Context{Sequence: 1}.encode()
	tests := []struct {
		name   string
		count  int
		target error
	}{{"none", 0, ErrUnproven}, {"two", 2, ErrNoDescriptors}, {"three", 3, ErrNoDescriptors}, {"253", 253, ErrNoDescriptors}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, near := receiver(t)
			fds := make([]int, test.count)
			fd := ownToken(t)
			for i := range fds {
				fds[i] = fd
			}
			leftover.ByThis(t, func() {
				control := unix.UnixCredentials(ownClaim())
				if test.count > 0 {
					control = append(control, unix.UnixRights(fds...)...)
				}
				if err := unix.Sendmsg(near, context, control, nil, 0); err != nil {
					t.Fatal(err)
				}
				if a, err := r.Next(); !errors.Is(err, test.target) || a != nil {
					t.Errorf("Next = %+v, %v, want %v", a, err, test.target)
				}
			})
		})
	}
}

func TestContextBringsItsStatement(t *testing.T) {
	r, near := receiver(t)
	if err := announceOwn(near, Context{Level: token.Identification, EffectiveOnly: true, Sequence: 1, At: 1 << 63, Capabilities: token.Capabilities{}}); err != nil {
		t.Fatal(err)
	}
	a, err := r.Next()
	if err != nil || a == nil {
		t.Fatalf("Next = %+v, %v", a, err)
	}
	defer a.Proof.Release()
	if a.At != 1<<63 || a.Token.Level() != token.Identification || !a.Token.EffectiveOnly() || a.Token.Capabilities() != (token.Capabilities{}) {
		t.Errorf("it begins at %d and is %v", a.At, a.Token)
	}
}

// TestWhatWasSentBeforeTheClientClosedIsStillThere is about a client that closes its end with an answer of the server's unread.
func TestWhatWasSentBeforeTheClientClosedIsStillThere(t *testing.T) {
	r, near := receiver(t)
	if err := announceOwn(near, Context{Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	r.Tell(InForce{})
	copied, err := unix.FcntlInt(uintptr(near), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	null, err := unix.Open("/dev/null", unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(null, near, unix.O_CLOEXEC); err != nil { // near's own close stays the cleanup's
		t.Fatal(err)
	}
	unix.Close(null)
	unix.Close(copied)
	if a, err := r.Next(); err != nil || a == nil {
		t.Errorf("Next = %+v, %v, want the context", a, err)
	} else {
		a.Proof.Release()
	}
	if a, err := r.Next(); err != io.EOF {
		t.Errorf("Next = %+v, %v, want io.EOF", a, err)
	}
}

func TestClientHearsWhyThoughTheServerLeftItsMessagesUnread(t *testing.T) {
	server, client := pair(t, unix.SOCK_STREAM)
	near, far, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(near)
	sendMessage(t, near, string(Hello{}.encode()))
	sendMessage(t, client, "G", far)
	unix.Close(far)
	r, err := ReceivePreface(server)
	if err != nil {
		t.Fatal(err)
	}
	r.Refuse(RefusedAccess)
	unix.Close(r.fd) // with the hello unread
	if m, err := receiveAnswer(near, 0); err != nil || m != RefusedAccess {
		t.Errorf("the client hears %v, %v, want %v", m, err, RefusedAccess)
	}
}

func TestLookSeesChangesOfTheThreadsContext(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it changes a thread's ids and groups")
	}
	raw := func(call uintptr, a, b, c uintptr) func() {
		return func() {
			if _, _, e := syscall.RawSyscall(call, a, b, c); e != 0 {
				panic(e)
			}
		}
	}
	groups := []uint32{61003, 61004}
	const unchanged = ^uintptr(0)
	tests := []struct {
		name   string
		change func()
		same   bool
	}{
		{"nothing", func() {}, true},
		{"real uid, which does not count", raw(unix.SYS_SETRESUID, 61001, unchanged, unchanged), true},
		{"uid", raw(unix.SYS_SETRESUID, unchanged, 61001, unchanged), false},
		{"gid", raw(unix.SYS_SETRESGID, unchanged, 61001, unchanged), false},
		{"groups", raw(unix.SYS_SETGROUPS, 2, uintptr(unsafe.Pointer(&groups[0])), 0), false},
		{"capabilities of root", func() {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			if err := unix.Capget(&header, &data[0]); err != nil {
				panic(err)
			}
			data[0].Effective &^= 1
			if err := unix.Capset(&header, &data[0]); err != nil {
				panic(err)
			}
		}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var before, after Look
			done, tid := make(chan error, 1), make(chan int, 1)
			go func() {
				runtime.LockOSThread() // for good: the thread ends with the goroutine
				tid <- unix.Gettid()
				err := before.Take()
				test.change()
				done <- errors.Join(err, after.Take())
			}()
			err := <-done
			waitThread(<-tid)
			if err != nil {
				t.Fatal(err)
			}
			if before.Equal(&after) != test.same {
				t.Errorf("looks are equal: %v, want %v", !test.same, test.same)
			}
		})
	}
}
