package main

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A hostile client keeps a copy of the control channel's far end, which the server has then, too, and sets its options meanwhile.

// flags of a socket that can be set and unset.
var socketFlags = []int{
	unix.SO_PASSPIDFD, unix.SO_PASSCRED, unix.SO_PASSSEC, unix.SO_PASSRIGHTS, unix.SO_TIMESTAMP, unix.SO_TIMESTAMPNS,
	unix.SO_RXQ_OVFL, unix.SO_BUSY_POLL, unix.SO_KEEPALIVE, unix.SO_OOBINLINE, unix.SO_MARK, unix.SO_DEBUG,
}

// toggle sets options of a socket as fast as it can, until stop is closed.
func toggle(fd int, stop <-chan struct{}, options ...func(fd, round int)) {
	for round := 0; ; round++ {
		select {
		case <-stop:
			return
		default:
		}
		for _, set := range options {
			set(fd, round)
		}
		runtime.Gosched()
	}
}

func toggleFlags(fd, round int) {
	for _, flag := range socketFlags {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, flag, round%2)
	}
}

// toggleWaiting sets all that says how long a call on the socket takes.
func toggleWaiting(fd, round int) {
	low, offset, buffer := 1, -1, 1<<20
	wait := unix.Timeval{Sec: 3600}
	if round%2 == 0 {
		low, offset, buffer, wait = 1<<30, 1, 1, unix.Timeval{}
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, low)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, offset)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, buffer)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
	_ = unix.SetNonblock(fd, round%2 == 0)
}

// toggleSignals has the server's process, or one of its threads, be told of what comes, by the signal that makes scopes follow.
func toggleSignals(server int) func(fd, round int) {
	return func(fd, round int) {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETSIG, 34)
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETOWN, server)
		flags := unix.O_RDWR
		if round%2 == 0 {
			flags |= unix.O_ASYNC
		}
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	}
}

// dropAll has the socket take nothing any more, for good.
func dropAll(fd, _ int) {
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	_ = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1)
}

// steal takes what the server is to read.
func steal(fd, _ int) {
	_, _, _, _, _ = unix.Recvmsg(fd, make([]byte, 64), make([]byte, 64), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
}

// whileToggling opens a connection to the library server that sets options meanwhile, and does something on it.
func (h *hostileOne) whileToggling(early bool, options []func(fd, round int), do func(c *rawClient)) {
	c := rawConnect(h.library())
	defer c.close()
	stop, stopped := make(chan struct{}), make(chan struct{})
	start := func() {
		go func() { defer close(stopped); toggle(c.far, stop, options...) }()
	}
	if early {
		start()
	}
	c.open("hold x\n")
	if !early {
		start()
	}
	do(c)
	close(stop)
	<-stopped
}

// messages sends the server as many messages as it takes, or a number of them, and looks on for a while.
func messages(n int, message func(i int) string) func(*rawClient) {
	return func(c *rawClient) {
		for i := range n {
			if c.say(message(i+1)) != nil {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func losses(i int) string { return lost(uint64(i), uint64(i)) }

// contexts announces the client's own context again and again.
func contexts(c *rawClient) {
	token := c.token()
	for i := range 100 {
		if c.sayAs(claim(), contextNow(uint64(i+1)), token) != nil {
			time.Sleep(time.Millisecond)
		}
	}
}

var optionAttacks = []attack{
	{"has pidfds come with 100 hellos", func(h *hostileOne) error {
		c := rawConnect(h.library())
		defer c.close()
		toggleFlags(c.far, 1)
		for range 100 {
			_ = c.say(hello(0, dynamicTracking))
		}
		_ = c.preface("G", c.far)
		_ = c.write("who x\n")
		read(c.pipe)
		return nil
	}},
	{"has pidfds come with lost messages", func(h *hostileOne) error {
		h.whileToggling(true, []func(int, int){func(fd, _ int) { toggleFlags(fd, 1) }}, messages(200, losses))
		return nil
	}},
	{"toggles flags", func(h *hostileOne) error {
		h.whileToggling(false, []func(int, int){toggleFlags}, contexts)
		return nil
	}},
	{"toggles what makes calls wait", func(h *hostileOne) error {
		h.whileToggling(false, []func(int, int){toggleWaiting}, contexts)
		return nil
	}},
	{"toggles all from the start", func(h *hostileOne) error {
		h.whileToggling(true, []func(int, int){toggleFlags, toggleWaiting}, messages(100, losses))
		return nil
	}},
	{"has signals sent", func(h *hostileOne) error {
		h.whileToggling(false, []func(int, int){toggleSignals(h.pidOf(h.library()))}, contexts)
		return nil
	}},
	{"drops what comes", func(h *hostileOne) error {
		h.whileToggling(false, []func(int, int){dropAll, steal}, contexts)
		return nil
	}},
	{"steals messages", func(h *hostileOne) error {
		h.whileToggling(false, []func(int, int){steal}, contexts)
		return nil
	}},
	{"shuts the channel down", func(h *hostileOne) error {
		h.whileToggling(false, []func(int, int){func(fd, round int) {
			if round > 10 {
				_ = unix.Shutdown(fd, round%3)
			}
		}}, contexts)
		return nil
	}},
	{"toggles while guise serve looks", func(h *hostileOne) error {
		c := rawConnect(h.serve())
		defer c.close()
		_ = c.say(hello(0, dynamicTracking))
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() { defer close(stopped); toggle(c.far, stop, toggleFlags, toggleWaiting) }()
		_ = c.preface("G", c.far)
		messages(20, losses)(c)
		_ = c.write("x\n")
		read(c.pipe)
		close(stop)
		<-stopped
		return nil
	}},
}

// pidOf returns the process that listens on a pipe, as the kernel tells everybody who connects.
func (h *hostileOne) pidOf(path string) int {
	fd := openSocket(path)
	defer unix.Close(fd)
	peer := must1(unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED))
	if int(peer.Pid) == os.Getpid() {
		panic(unix.ESRCH)
	}
	return int(peer.Pid)
}
