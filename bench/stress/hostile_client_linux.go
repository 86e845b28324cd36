package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// hostileOne is a hostile user's process.
type hostileOne struct {
	besieged
	number int
	mu     sync.Mutex
	progress
}

// attack is something that a hostile user does again and again.
type attack struct {
	name string
	do   func(*hostileOne) error
}

// besieger is what one hostile user does: its attacks all at once.
type besieger struct {
	name    string
	attacks []attack
	crowded bool // it has as many groups as one can have, and not the pipe's
	root    bool // its process begins as root, to become somebody with a second identity, or to have others become somebody
	begin   func(*hostileOne) error
}

// beHostile is the role of a hostile user.
func beHostile(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	h := &hostileOne{besieged: besieged(args[0]), number: n, progress: progress{Done: make(map[string]int), Failed: make(map[string]int), Last: make(map[string]string)}}
	part := parts[n]
	if part.begin != nil {
		if err := part.begin(h); err != nil {
			return err
		}
	}
	go endWithInput()
	for _, a := range part.attacks {
		go h.repeat(a)
	}
	fmt.Println("ready")
	for {
		time.Sleep(time.Second / 2)
		h.mu.Lock()
		b, err := json.Marshal(h.progress)
		h.mu.Unlock()
		if err != nil {
			return err
		}
		fmt.Println(string(b))
	}
}

// repeat does an attack without end.
func (h *hostileOne) repeat(a attack) {
	for {
		err := guarded(func() error { return a.do(h) })
		h.mu.Lock()
		h.Done[a.name]++
		if err != nil {
			h.Failed[a.name]++
			h.Last[a.name] = err.Error()
		}
		h.mu.Unlock()
		if err != nil {
			time.Sleep(time.Millisecond) // to attack is more than to spin
		}
	}
}

// guarded makes errors of panics: an attacker goes on.
func guarded(f func() error) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case error:
			if err = r; errors.As(r, new(runtime.Error)) {
				err = fmt.Errorf("%w\n%s", r, debug.Stack())
			}
		default:
			err = fmt.Errorf("%v\n%s", r, debug.Stack())
		}
	}()
	return f()
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

// both does something with either server.
func (h *hostileOne) both(f func(path string)) {
	f(h.serve())
	f(h.library())
}

// patience is how long a hostile user waits for a server itself.
var patience = unix.Timeval{Sec: 2}

var errNotAccepted = errors.New("the server's queue is full")

// openSocket connects to a server.
func openSocket(path string) int {
	fd := must1(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	limitWaiting(fd)
	err := unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	for err == unix.EINTR { // by Go's own signal
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		return fd
	}
	unix.Close(fd)
	if err == unix.EAGAIN {
		panic(errNotAccepted)
	}
	panic(err)
}

func limitWaiting(fd int) {
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &patience))
	}
}

// rawClient is a client that does each step by hand.
type rawClient struct {
	pipe, near, far int
	kept            []int
}

// rawConnect connects, and makes a control channel that the server has not been given yet.
func rawConnect(path string) *rawClient {
	c := &rawClient{pipe: openSocket(path)}
	c.near, c.far = socketPair(unix.SOCK_SEQPACKET)
	limitWaiting(c.near)
	return c
}

func socketPair(kind int) (a, b int) {
	p := must1(unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0))
	return p[0], p[1]
}

func (c *rawClient) close() { closeAll(append(c.kept, c.pipe, c.near, c.far)...) }

func closeAll(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// send sends a message with descriptors. The server may have ended the connection, which is no concern of who attacks it.
func send(fd int, message string, fds ...int) error {
	var control []byte
	if len(fds) > 0 {
		control = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(fd, []byte(message), control, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
}

func (c *rawClient) say(message string, fds ...int) error   { return send(c.near, message, fds...) }
func (c *rawClient) write(data string, fds ...int) error    { return send(c.pipe, data, fds...) }
func (c *rawClient) preface(first string, fds ...int) error { return send(c.pipe, first, fds...) }

// sayAs is say with a claim.
func (c *rawClient) sayAs(claim *unix.Ucred, message string, fds ...int) error {
	control := unix.UnixCredentials(claim)
	if len(fds) > 0 {
		control = append(control, unix.UnixRights(fds...)...)
	}
	return unix.Sendmsg(c.near, []byte(message), control, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
}

// open opens the connection as it should be, with dynamic tracking, and asks the library server for something. The far end is kept.
func (c *rawClient) open(request string) {
	_ = c.say(hello(0, dynamicTracking))
	must(c.preface("G", c.far))
	must(c.write(request))
}

// token makes a token socket of what this process is now.
func (c *rawClient) token() int {
	near, far := socketPair(unix.SOCK_SEQPACKET)
	c.kept = append(c.kept, near, far)
	return far
}

func claim() *unix.Ucred {
	return &unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
}

// read takes in what has come, and reports whether there is more to come.
func read(fd int) bool {
	n, err := unix.Read(fd, make([]byte, 64<<10))
	return n > 0 || err == unix.EINTR
}

const (
	staticTracking  = 1
	dynamicTracking = 2
)

func hello(level, tracking byte) string {
	return "GU\x01\x01" + string([]byte{level, tracking, 0, 0}) + strings.Repeat("\xff", 16) + strings.Repeat("\x00", 8)
}

// context is a context message of the process itself.
func contextAt(sequence, at uint64, flags byte) string {
	b := append([]byte("GU\x01\x02"), 0, flags, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, sequence)
	b = binary.LittleEndian.AppendUint64(b, at)
	return string(b) + strings.Repeat("\xff", 16) + strings.Repeat("\x00", 8)
}

// contextNow is one that changed between writes.
func contextNow(sequence uint64) string { return contextAt(sequence, 0, 2) }

func lost(sequence, source uint64) string {
	b := binary.LittleEndian.AppendUint64([]byte("GU\x01\x06\x00\x00\x00\x00"), sequence)
	return string(binary.LittleEndian.AppendUint64(b, source))
}

// wayOf is a way of so many hops.
func wayOf(hops int) string {
	hop := "\x07\x00\x00\x00" + "\x67\xee\x00\x00" + "\x68\xee\x00\x00" + "\xc8/" + strings.Repeat("w", 199)
	return "GU\x01\x05" + string([]byte{byte(hops), 0, 0, 0}) + strings.Repeat(hop, hops)
}

// processesOf returns the other processes of this user's real uid that a function wants.
func processesOf(wanted func(pid int, status string) bool) (pids []int) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		status, err := os.ReadFile(proc(pid, "status"))
		if err != nil || !bytes.HasPrefix(status, []byte("Name:")) {
			continue
		}
		var uid int
		_, _ = fmt.Sscan(statusField(string(status), "Uid"), &uid)
		if uid == os.Getuid() && wanted(pid, string(status)) {
			pids = append(pids, pid)
		}
	}
	return pids
}
