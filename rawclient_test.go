package guise

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"github.com/guise-project/guise/internal/testdir"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The tests of bad input need clients that know no good manners, as processes of their own: the test binary plays them when it
// finds this variable in its environment. It happens in an init function, before any TestMain.
const rawRole = "GUISE_TEST_RAW_ROLE"

func init() {
	name, ok := os.LookupEnv(rawRole)
	if !ok {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(os.Stderr, "role %s: %v\n", name, r)
			os.Exit(2)
		}
	}()
	if play, ok := rawRoles[name]; ok {
		play()
		os.Exit(0)
	}
	for _, m := range misbehaviours() {
		if m.name == name {
			m.play()
			os.Exit(0)
		}
	}
	panic("no such role")
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func must1[T any](v T, err error) T {
	must(err)
	return v
}

// rawProcess is the test binary in a role.
type rawProcess struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   output
	ended bool
}

func startRaw(t *testing.T, name string, attr *syscall.SysProcAttr, env []string, files ...*os.File) *rawProcess {
	t.Helper()
	p := &rawProcess{t: t, cmd: exec.Command("/proc/self/exe")}
	// The race detector would have each process sleep for a second at its end.
	p.cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0", rawRole+"="+name), env...)
	p.cmd.SysProcAttr = attr
	p.cmd.Stdout, p.cmd.Stderr = &p.out, os.Stderr
	p.cmd.ExtraFiles = files
	p.stdin = must1(p.cmd.StdinPipe())
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting a process for role %s: %v", name, err)
	}
	t.Cleanup(func() {
		if !p.ended {
			p.cmd.Process.Kill()
			p.cmd.Wait()
		}
	})
	return p
}

// output is what a process has said so far.
type output struct {
	mu   sync.Mutex
	said *sync.Cond
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	if o.said != nil {
		o.said.Broadcast()
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// line waits for a line of output and returns it.
func (o *output) line() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.said == nil {
		o.said = sync.NewCond(&o.mu)
	}
	for {
		if line, _, ok := strings.Cut(o.text.String(), "\n"); ok {
			return line
		}
		o.said.Wait()
	}
}

// resume lets the process go on from where it waits.
func (p *rawProcess) resume() { io.WriteString(p.stdin, "\n") }

// end waits for the process to end and returns what it said.
func (p *rawProcess) end() string {
	p.t.Helper()
	p.stdin.Close()
	p.ended = true
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%s: %v", p.cmd.Env[len(p.cmd.Env)-1], err)
	}
	return strings.TrimSpace(p.out.String())
}

// asUser is the client that the tests use where they may start processes as somebody else.
func asUser(uid, gid uint32, groups ...uint32) *syscall.SysProcAttr {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
}

func asRoot() *syscall.SysProcAttr { return asUser(0, 0, 0) }

func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: " + why)
	}
}

// listenAt listens on a path of the test's own.
func listenAt(t *testing.T, config *ListenConfig) *Listener {
	t.Helper()
	l, err := Listen(filepath.Join(testdir.Open(t, 0o755), "pipe"), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

const patience = time.Minute // which ends what hangs

// acceptFrom accepts a connection whose operations end after a while if the library fails to.
func acceptFrom(t *testing.T, l *Listener) *Conn {
	t.Helper()
	var c *Conn
	inTime(t, "AcceptPipe", func() {
		var err error
		if c, err = l.AcceptPipe(); err != nil {
			t.Error(err)
		}
	})
	if c == nil {
		t.FailNow()
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// inTime fails the test if f does not return.
func inTime(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s does not return", what)
	}
}

// rawClient is a client that does each step by hand.
type rawClient struct {
	pipe int // connected to the server
	near int // the control channel
	far  int
	kept []int // token sockets
	ends []func()

	options func(fd int) error // set on sockets whose other copy the server gets, if not nil
}

func rawConnect(path string) int {
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET} {
		fd := must1(unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0))
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if err == nil {
			return fd
		}
		unix.Close(fd)
		if err != unix.EPROTOTYPE {
			panic(err)
		}
	}
	panic("the pipe is neither of bytes nor of messages")
}

// newRawClient connects to the test's server.
func newRawClient() *rawClient {
	c := &rawClient{pipe: rawConnect(os.Getenv("GUISE_TEST_PATH"))}
	c.near, c.far = rawPair(unix.SOCK_SEQPACKET)
	for _, fd := range []int{c.pipe, c.near} {
		must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)}))
	}
	return c
}

func rawPair(kind int) (a, b int) {
	p := must1(unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0))
	return p[0], p[1]
}

// await waits until the test says to go on.
func (c *rawClient) await() { must1(os.Stdin.Read(make([]byte, 1))) }

// preface sends first with the given descriptors.
func (c *rawClient) preface(first string, fds ...int) {
	must(unix.Sendmsg(c.pipe, []byte(first), unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL))
}

// say sends a control message with the given descriptors.
func (c *rawClient) say(message string, fds ...int) {
	var control []byte
	if len(fds) > 0 {
		control = unix.UnixRights(fds...)
	}
	must(unix.Sendmsg(c.near, []byte(message), control, nil, unix.MSG_NOSIGNAL))
}

// sayAs is say with a claim. It returns what the kernel says to that.
func (c *rawClient) sayAs(claim *unix.Ucred, message string, fds ...int) error {
	control := unix.UnixCredentials(claim)
	if len(fds) > 0 {
		control = append(control, unix.UnixRights(fds...)...)
	}
	return unix.Sendmsg(c.near, []byte(message), control, nil, unix.MSG_NOSIGNAL)
}

// mustUnlessEnded is must for what is sent after something for which the server may have ended the connection already.
func mustUnlessEnded(err error) {
	if err != unix.EPIPE && err != unix.ECONNRESET {
		must(err)
	}
}

// way sends a way as it should be, which takes root.
func (c *rawClient) way() {
	must(c.sayAs(&unix.Ucred{Pid: int32(os.Getpid()), Uid: rawClaimed, Gid: rawClaimed}, rawWay(1)))
}

// foreign returns a token socket that another process of the same user made.
func (c *rawClient) foreign() int {
	a, b := rawPair(unix.SOCK_SEQPACKET)
	c.child("maker", b)
	return receiveDescriptor(a)
}

// write writes data to the pipe, which the server may have ended already.
func (c *rawClient) write(data string) {
	if err := unix.Sendmsg(c.pipe, []byte(data), nil, nil, unix.MSG_NOSIGNAL); err != unix.EPIPE && err != unix.ECONNRESET {
		must(err)
	}
}

const (
	rawUnstated = iota
	rawStatic
	rawDynamic
)

func rawHello(level, tracking byte) string {
	return "GU\x01\x01" + string([]byte{level, tracking, 0, 0}) + strings.Repeat("\xff", 16) + strings.Repeat("\x00", 8)
}

func rawContext(level byte, sequence, at uint64) string {
	b := append([]byte("GU\x01\x02"), level, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, sequence)
	b = binary.LittleEndian.AppendUint64(b, at)
	return string(b) + strings.Repeat("\xff", 16) + strings.Repeat("\x00", 8)
}

// rawNow is a context that changed between writes.
func rawNow(sequence, at uint64) string {
	b := []byte(rawContext(0, sequence, at))
	b[5] = 2
	return string(b)
}

func rawLost(sequence, source uint64) string {
	b := binary.LittleEndian.AppendUint64([]byte("GU\x01\x06\x00\x00\x00\x00"), sequence)
	return string(binary.LittleEndian.AppendUint64(b, source))
}

// rawWay is a way of so many hops.
func rawWay(hops int) string {
	hop := "\x07\x00\x00\x00" + "\x67\xee\x00\x00" + "\x68\xee\x00\x00" + "\x07/origin"
	return "GU\x01\x05" + string([]byte{byte(hops), 0, 0, 0}) + strings.Repeat(hop, hops)
}

// rawClaimed is what a way has to claim.
const rawClaimed = 4294967292

// open opens the connection as it should be, with dynamic tracking, and writes "1" at 0.
func (c *rawClient) open() {
	c.say(rawHello(0, rawDynamic))
	c.preface("G", c.far)
	unix.Close(c.far)
	c.far = -1
	c.write("1")
}

func (c *rawClient) claim() *unix.Ucred {
	return &unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
}

// announce sends a context at 1, where what is written next begins.
func (c *rawClient) announce(sequence uint64, token int, claim *unix.Ucred) error {
	return c.announceAt(sequence, 1, token, claim)
}

func (c *rawClient) announceAt(sequence, at uint64, token int, claim *unix.Ucred) error {
	var control []byte
	if claim != nil {
		control = unix.UnixCredentials(claim)
	}
	if token >= 0 {
		control = append(control, unix.UnixRights(token)...)
	}
	return unix.Sendmsg(c.near, []byte(rawContext(0, sequence, at)), control, nil, unix.MSG_NOSIGNAL)
}

// token makes a token socket of what this process is now.
func (c *rawClient) token() int {
	near, far := rawPair(unix.SOCK_SEQPACKET)
	c.kept = append(c.kept, near, far)
	return far
}

// readUninterrupted is read(2), which a socket with a time limit has the runtime's signals interrupt.
func readUninterrupted(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// hear says on standard output what the server told this client, and how the pipe ended.
func (c *rawClient) hear() {
	if c.far >= 0 {
		unix.Close(c.far)
		c.far = -1
	}
	for {
		b := make([]byte, 64)
		n, err := readUninterrupted(c.near, b)
		if err == unix.ECONNRESET {
			continue
		}
		if err != nil {
			fmt.Println("heard", err)
			break
		}
		if n == 0 {
			fmt.Println("heard nothing")
			break
		}
		if n == 8 && string(b[:4]) == "GU\x01\x04" {
			fmt.Println("refused", b[4])
			break
		}
	}
	n, err := readUninterrupted(c.pipe, make([]byte, 64))
	if n > 0 || err == unix.EAGAIN {
		fmt.Println("the pipe goes on", n, err)
	}
	for _, end := range c.ends {
		end()
	}
}

func rawBind(fd int, name string) {
	address := unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	for i := range len(name) {
		address.Path[i] = int8(name[i])
	}
	if _, _, e := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&address)), unsafe.Sizeof(address.Family)+uintptr(len(name))); e != 0 {
		panic(e)
	}
}

// rawAccepted returns a connection that this process accepted from itself on the abstract name.
func rawAccepted(name string) int {
	l := must1(unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0))
	rawBind(l, name)
	must(unix.Listen(l, 1))
	fd := must1(unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0))
	address := unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	for i := range len(name) {
		address.Path[i] = int8(name[i])
	}
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&address)), unsafe.Sizeof(address.Family)+uintptr(len(name))); e != 0 {
		panic(e)
	}
	accepted, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	must(err)
	return accepted
}

func rawAbstract(s string) string { return "\x00" + s + strconv.Itoa(os.Getpid()) }

func rawFile(path string) int { return must1(unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)) }

func rawSocket(family, kind int) int { return must1(unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)) }

// become changes the ids of the whole process: real, effective, saved.
func become(uid, euid, suid int) { must(syscall.Setresuid(uid, euid, suid)) }

// child starts another process of the same user, with the given descriptors from 3 on.
func (c *rawClient) child(role string, fds ...int) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), rawRole+"="+role)
	cmd.Stderr = os.Stderr
	for _, fd := range fds {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(must1(unix.Dup(fd))), role))
	}
	stdin := must1(cmd.StdinPipe())
	stdout := must1(cmd.StdoutPipe())
	must(cmd.Start())
	must1(stdout.Read(make([]byte, 1)))
	c.ends = append(c.ends, func() { stdin.Close(); cmd.Wait() })
}

func receiveDescriptor(fd int) int {
	control := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	must(err)
	messages := must1(unix.ParseSocketControlMessage(control[:n]))
	return must1(unix.ParseUnixRights(&messages[0]))[0]
}

// rawRoles are processes other than misbehaving clients.
var rawRoles = map[string]func(){
	// maker sends a token socket of its own to descriptor 3.
	"maker": func() {
		must(unix.Sendmsg(3, []byte{'t'}, unix.UnixRights((&rawClient{}).token()), nil, 0))
		os.Stdout.Write([]byte{'\n'})
		io.Copy(io.Discard, os.Stdin)
	},
	// announcer sends its parent's token socket, descriptor 4, over its parent's control channel, descriptor 3.
	"announcer": func() {
		c := &rawClient{near: 3}
		must(c.announce(1, 4, c.claim()))
		os.Stdout.Write([]byte{'\n'})
		io.Copy(io.Discard, os.Stdin)
	},
	// guide sends a way over its parent's control channel, descriptor 3.
	"guide": func() {
		c := &rawClient{near: 3}
		must(c.sayAs(c.claim(), rawWay(1)))
		os.Stdout.Write([]byte{'\n'})
		io.Copy(io.Discard, os.Stdin)
	},
	// plain connects, writes "plain" and waits.
	"plain": func() {
		fd := rawConnect(os.Getenv("GUISE_TEST_PATH"))
		must1(unix.Write(fd, []byte("plain")))
		io.Copy(io.Discard, os.Stdin)
	},
}

// misbehaviour is what a client does that ends its connection.
type misbehaviour struct {
	name string
	// first: it goes wrong with the first thing that the client sends. Otherwise the connection is opened well, and goes
	// wrong in what precedes "2".
	first bool
	// before is what the client does before it connects.
	before func()
	do     func(c *rawClient)
	as     *syscall.SysProcAttr // nil: an ordinary user
	root   bool                 // the test needs it to be root
	dies   bool                 // the client ends before the server looks
	told   string               // what the client hears
	says   string               // what the server's error says
}

func (m misbehaviour) play() {
	if m.before != nil {
		m.before()
	}
	c := newRawClient()
	if !m.first {
		c.open()
		c.await()
	}
	m.do(c)
	if !m.dies {
		c.hear()
	}
}
