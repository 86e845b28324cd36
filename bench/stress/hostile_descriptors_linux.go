package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Descriptors that block who closes them, or that are very many, wherever one can be put.

// most is how many descriptors one message can have (SCM_MAX_FD).
const most = 253

// linger is how long whoever closes a lingering socket waits.
var linger = &unix.Linger{Onoff: 1, Linger: 60}

// lingering returns a TCP socket whose close(2) waits for a minute, since its peer takes nothing, and the peer.
func lingering() (fd, peer int) {
	l := must1(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	defer unix.Close(l)
	must(unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)) // the kernel's least
	must(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(unix.Listen(l, 1))
	fd = must1(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1))
	must(unix.Connect(fd, must1(unix.Getsockname(l))))
	peer, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	must(err)
	must(unix.SetNonblock(fd, true))
	for {
		if _, err := unix.Write(fd, make([]byte, 64<<10)); err != nil {
			break
		}
	}
	must(unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, linger))
	return fd, peer
}

// nested puts a descriptor into the queue of a socket, that into another's, and so on, and returns the last. The first is closed here.
func nested(fd, depth int) int {
	for range depth {
		a, b := socketPair(unix.SOCK_STREAM)
		err := send(a, "x", fd)
		unix.Close(a)
		if err != nil {
			unix.Close(b)
			break
		}
		unix.Close(fd)
		fd = b
	}
	return fd
}

// giving sends a message with descriptors of its own making. It closes them at once, so that whoever has received them closes the last
// copy.
type giving func(fd int, message string) error

// placed are all the places that descriptors can come to the server from.
var placed = []struct {
	name string
	put  func(path string, give giving)
}{
	{"in a preface", func(path string, give giving) {
		c := rawConnect(path)
		defer c.close()
		_ = give(c.pipe, "G")
	}},
	{"with a preface of two bytes", func(path string, give giving) {
		c := rawConnect(path)
		defer c.close()
		_ = give(c.pipe, "GG")
	}},
	{"in a hello", func(path string, give giving) {
		c := rawConnect(path)
		defer c.close()
		_ = give(c.near, hello(0, dynamicTracking))
		_ = c.preface("G", c.far)
		_ = c.write("x\n")
		read(c.pipe)
	}},
	{"in an empty message", func(path string, give giving) {
		c := rawConnect(path)
		defer c.close()
		_ = c.say(hello(0, dynamicTracking))
		_ = give(c.near, "")
		_ = c.preface("G", c.far)
		_ = c.write("x\n")
		read(c.pipe)
	}},
	{"in a context", func(path string, give giving) {
		c := rawConnect(path)
		defer c.close()
		c.open("hold x\n")
		_ = give(c.near, contextNow(1))
		read(c.pipe)
	}},
	{"with data", func(path string, give giving) {
		fd := openSocket(path)
		defer unix.Close(fd)
		_ = send(fd, "w")
		for range 3 {
			_ = give(fd, "ho x\n")
		}
		read(fd)
	}},
	{"behind an offset of peeks", func(path string, give giving) {
		c := rawConnect(path)
		defer c.close()
		_ = unix.SetsockoptInt(c.far, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 1<<20)
		c.open("hold x\n")
		_ = give(c.near, "x")
		_ = give(c.near, "x")
		read(c.pipe)
	}},
	{"in the channel of a client that goes", func(path string, give giving) {
		c := rawConnect(path)
		defer c.close()
		_ = c.say(hello(0, dynamicTracking))
		for range 3 {
			_ = give(c.near, "")
		}
		_ = c.preface("G", c.far)
	}},
	{"in the channel of who breaks the protocol", func(path string, give giving) {
		c := rawConnect(path)
		defer c.close()
		c.open("hold x\n")
		_ = c.say("x")
		for range 3 {
			_ = give(c.near, contextNow(1))
		}
	}},
}

// putEverywhere makes attacks of putting descriptors everywhere: one that is nasty alone, and last of three and of as many as there can
// be.
func putEverywhere(what string, nasty func() int) (attacks []attack) {
	for _, place := range placed {
		attacks = append(attacks, attack{what + " " + place.name, func(h *hostileOne) error {
			return eachWay(h, place.put, func(fd int, message string, n int) error { return giveAway(fd, message, n, nasty()) })
		}})
	}
	return attacks
}

// eachWay puts one, three, and as many descriptors as one message can have, to either server. One that takes none does not keep them
// from the other.
func eachWay(h *hostileOne, put func(path string, give giving), give func(fd int, message string, n int) error) (first error) {
	for _, n := range []int{1, 3, most} {
		for _, path := range []string{h.serve(), h.library()} {
			err := guarded(func() error {
				put(path, func(fd int, message string) error { return give(fd, message, n) })
				return nil
			})
			if first == nil {
				first = err
			}
		}
	}
	return first
}

// giveAway sends n descriptors, the last of which is given, and closes that.
func giveAway(fd int, message string, n, last int) error {
	fds := make([]int, n)
	for i := range fds {
		fds[i] = fd
	}
	fds[n-1] = last
	err := send(fd, message, fds...)
	if err != nil {
		// Nobody else has it: here it must not linger.
		_ = unix.SetsockoptLinger(last, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	}
	unix.Close(last)
	return err
}

// peers keeps the last ones of those that lingering sockets wait for; to close one ends the wait.
type peers struct {
	ends chan int
}

func (p *peers) keep(fd int) {
	for {
		select {
		case p.ends <- fd:
			return
		default:
		}
		select {
		case old := <-p.ends:
			unix.Close(old)
		default:
		}
	}
}

var lingeringPeers = &peers{make(chan int, 3000)}

var lingeringAttacks = putEverywhere("a lingering socket", func() int {
	fd, peer := lingering()
	lingeringPeers.keep(peer)
	return fd
})

var nestedAttacks = putEverywhere("a lingering socket in queues", func() int {
	fd, peer := lingering()
	lingeringPeers.keep(peer)
	return nested(fd, 4)
})

// manyLingering are enough for all who close, and connections besides that have nothing to be closed for.
var manyLingering = []attack{
	{"120 lingering sockets and 400 connections", func(h *hostileOne) error {
		var all []*rawClient
		var cheap, ends []int
		defer func() {
			for _, c := range all {
				c.close()
			}
			closeAll(cheap...)
			closeAll(ends...)
		}()
		for i := range 120 {
			fd, peer := lingering()
			ends = append(ends, peer)
			path := h.library()
			if i%2 == 0 {
				path = h.serve()
			}
			c := rawConnect(path)
			all = append(all, c)
			_ = c.say(hello(0, dynamicTracking))
			_ = giveAway(c.pipe, "G", 1, fd)
		}
		for i := range 400 {
			path := h.library()
			if i%2 == 0 {
				path = h.serve()
			}
			a, b := socketPair(unix.SOCK_STREAM)
			c := openSocket(path)
			cheap = append(cheap, c)
			_ = send(c, "G", b)
			closeAll(a, b)
		}
		time.Sleep(5 * time.Second)
		return nil
	}},
}

// refusedAttacks are attacks of who has as many groups as one can have, and is not let in by guise serve.
var refusedAttacks = []attack{
	{"is refused", func(h *hostileOne) error {
		c := rawConnect(h.serve())
		defer c.close()
		_ = c.say(hello(0, dynamicTracking))
		_ = c.preface("G", c.far)
		_ = c.write("x\n")
		read(c.pipe)
		return nil
	}},
	{"is refused without a word", func(h *hostileOne) error {
		unix.Close(openSocket(h.serve()))
		return nil
	}},
	{fmt.Sprintf("asks with %d groups", mostGroups), func(h *hostileOne) error {
		fd := openSocket(h.library())
		defer unix.Close(fd)
		_ = send(fd, "who x\n")
		read(fd)
		return nil
	}},
}
