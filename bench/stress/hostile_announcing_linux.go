package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/role"
)

// crowdedAnnouncing are announcements of who has as many groups as one can have.
var crowdedAnnouncing = []attack{
	{"announces as fast as it can", func(h *hostileOne) error {
		c := rawConnect(h.library())
		defer c.close()
		c.open("hold x\n")
		token, sequence := c.token(), uint64(0)
		for begun := time.Now(); time.Since(begun) < time.Second; {
			sequence++
			switch err := c.sayAs(claim(), contextNow(sequence), token); err {
			case nil:
			case unix.EAGAIN:
				time.Sleep(time.Millisecond)
			default:
				return err
			}
		}
		return nil
	}},
	{"has 8 connections wait with 512 announcements each", func(h *hostileOne) error {
		var all []*rawClient
		defer func() {
			for _, c := range all {
				c.close()
			}
		}()
		for range 8 {
			c := rawConnect(h.library())
			all = append(all, c)
			c.open("hold x\n")
			for i := range 512 {
				token := c.token()
				for begun := time.Now(); ; time.Sleep(time.Millisecond) {
					// At a place where nothing will ever be.
					err := c.sayAs(claim(), contextAt(uint64(i+1), 1<<20+uint64(i), 0), token)
					if err == nil || err != unix.EAGAIN || time.Since(begun) > time.Second {
						break
					}
				}
				closeAll(c.kept...)
				c.kept = nil
			}
		}
		time.Sleep(time.Second)
		return nil
	}},
}

// brokenAnnouncements each end their connection.
var brokenAnnouncements = []struct {
	name string
	say  func(c *rawClient)
}{
	{"replays", func(c *rawClient) {
		token := c.token()
		for range 3 {
			_ = c.sayAs(claim(), contextNow(5), token)
		}
	}},
	{"has places fall", func(c *rawClient) {
		token := c.token()
		for i := range uint64(50) {
			_ = c.sayAs(claim(), contextAt(i+1, 1000-i, 0), token)
		}
	}},
	{"has numbers fall", func(c *rawClient) {
		token := c.token()
		for i := range uint64(50) {
			_ = c.sayAs(claim(), contextNow(1000-i), token)
		}
	}},
	{"has the last number", func(c *rawClient) {
		token := c.token()
		_ = c.sayAs(claim(), contextNow(1<<64-1), token)
		_ = c.sayAs(claim(), contextNow(0), token)
	}},
	{"claims root", func(c *rawClient) {
		_ = c.sayAs(&unix.Ucred{Pid: int32(os.Getpid())}, contextNow(1), c.token())
		_ = c.sayAs(&unix.Ucred{Pid: 1, Uid: claim().Uid, Gid: claim().Gid}, contextNow(1), c.token())
		_ = c.say(contextNow(2), c.token())
	}},
	{"announces an accepted connection", func(c *rawClient) {
		name := fmt.Sprintf("\x00hostile-%d-%d", os.Getpid(), c.pipe)
		l := must1(unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0))
		a := must1(unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0))
		c.kept = append(c.kept, l, a)
		must(unix.Bind(l, &unix.SockaddrUnix{Name: name}))
		must(unix.Listen(l, 1))
		must(unix.Connect(a, &unix.SockaddrUnix{Name: name}))
		b, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		must(err)
		c.kept = append(c.kept, b)
		_ = c.sayAs(claim(), contextNow(1), b)
	}},
	{"announces the pipe itself", func(c *rawClient) { _ = c.sayAs(claim(), contextNow(1), c.pipe) }},
	{"announces a file", func(c *rawClient) {
		fd := must1(unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0))
		c.kept = append(c.kept, fd)
		_ = c.sayAs(claim(), contextNow(1), fd)
	}},
	{"sends ways without privilege", func(c *rawClient) {
		for range 50 {
			_ = c.sayAs(&unix.Ucred{Pid: int32(os.Getpid()), Uid: 4294967292, Gid: 4294967292}, wayOf(32))
			_ = c.say(wayOf(32))
		}
	}},
	{"sends a way that is too long", func(c *rawClient) { _ = c.say(wayOf(200)) }},
	{"sends a way that is cut off", func(c *rawClient) { w := wayOf(32); _ = c.say(w[:len(w)-1]) }},
	{"says lost again and again", func(c *rawClient) {
		for i := range 200 {
			_ = c.say(lost(uint64(i+1), uint64(i%3)))
		}
	}},
	{"says lost of very many sources", func(c *rawClient) {
		for i := range 2000 {
			if c.say(lost(uint64(i+1), uint64(i))) != nil {
				runtime.Gosched()
			}
		}
	}},
	{"sends text", func(c *rawClient) { _ = c.say("mount: only root can do that\n") }},
	{"sends nothing", func(c *rawClient) { _ = c.say("") }},
	{"sends another hello", func(c *rawClient) { _ = c.say(hello(0, dynamicTracking)) }},
	{"sends what a server says", func(c *rawClient) { _ = c.say("GU\x01\x04\x01\x00\x00\x00") }},
	{"sends a message of another version", func(c *rawClient) { _ = c.say("GU\x09\x02" + contextNow(1)[4:]) }},
	{"sends a message of 60000 bytes", func(c *rawClient) { _ = c.say(contextNow(1)+string(make([]byte, 60000)), c.token()) }},
	{"sends 253 token sockets", func(c *rawClient) {
		fds := make([]int, most)
		for i := range fds {
			fds[i] = c.near
		}
		_ = c.sayAs(claim(), contextNow(1), fds...)
	}},
	{"announces from another process", func(c *rawClient) { stranger(c.near, c.token()) }},
	{"announces another process's token socket", func(c *rawClient) {
		a, b := socketPair(unix.SOCK_SEQPACKET)
		c.kept = append(c.kept, a, b)
		stranger(b, -1)
		control := make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(a, make([]byte, 64), control, unix.MSG_CMSG_CLOEXEC)
		must(err)
		fds := must1(unix.ParseUnixRights(&must1(unix.ParseSocketControlMessage(control[:n]))[0]))
		c.kept = append(c.kept, fds...)
		_ = c.sayAs(claim(), contextNow(1), fds[0])
	}},
	{"has a set-user-ID program write", func(c *rawClient) {
		channel := os.NewFile(uintptr(must1(unix.FcntlInt(uintptr(c.near), unix.F_DUPFD_CLOEXEC, 0))), "channel")
		defer channel.Close()
		cmd := exec.Command("/bin/su", "--no-such-option")
		cmd.Stdout, cmd.Stderr = channel, channel
		_ = cmd.Run()
	}},
}

// stranger has another process of this user's announce itself, with its own token socket or with one of this process's.
func stranger(channel, token int) {
	cmd := exec.Command("/proc/self/exe", "--role", "hostile stranger")
	for _, fd := range []int{channel, token} {
		if fd >= 0 {
			f := os.NewFile(uintptr(must1(unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0))), "socket")
			defer f.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
	}
	must(cmd.Run())
}

// beStranger is the role of such a process.
func beStranger([]string) error {
	const channel, given = 3, 4
	c := &rawClient{near: channel}
	token := given
	if _, err := unix.FcntlInt(given, unix.F_GETFD, 0); err != nil {
		token = c.token()
	}
	return c.sayAs(claim(), contextNow(1), token)
}

// channels are what a preface may bring that is no control channel.
var channels = []struct {
	name string
	make func() (fd int, others []int)
}{
	{"a file", func() (int, []int) { return must1(unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)), nil }},
	{"a directory", func() (int, []int) { return must1(unix.Open("/", unix.O_RDONLY|unix.O_CLOEXEC, 0)), nil }},
	{"a pipe", func() (int, []int) {
		var p [2]int
		must(unix.Pipe2(p[:], unix.O_CLOEXEC))
		return p[0], p[1:]
	}},
	{"a TCP socket", func() (int, []int) {
		return must1(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)), nil
	}},
	{"a pair of streams", func() (int, []int) { a, b := socketPair(unix.SOCK_STREAM); return a, []int{b} }},
	{"a pair of datagrams", func() (int, []int) { a, b := socketPair(unix.SOCK_DGRAM); return a, []int{b} }},
	{"a pair with a name", func() (int, []int) {
		a, b := socketPair(unix.SOCK_SEQPACKET)
		must(unix.Bind(a, &unix.SockaddrUnix{})) // the kernel chooses one
		return a, []int{b}
	}},
	{"a listening socket", func() (int, []int) {
		fd := must1(unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0))
		must(unix.Bind(fd, &unix.SockaddrUnix{}))
		must(unix.Listen(fd, 1))
		return fd, nil
	}},
	{"an epoll instance of its own", func() (int, []int) { return must1(unix.EpollCreate1(unix.EPOLL_CLOEXEC)), nil }},
}

// channelAttacks hand over each of them.
var channelAttacks = []attack{{"hands over no control channel, of every kind there is", func(h *hostileOne) error {
	for _, channel := range channels {
		err := guarded(func() error {
			h.both(func(path string) {
				fd, others := channel.make()
				defer closeAll(append(others, fd)...)
				pipe := openSocket(path)
				defer unix.Close(pipe)
				_ = send(pipe, "G", fd)
				_ = send(pipe, "x\n")
			})
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", channel.name, err)
		}
	}
	return nil
}}}

// breakingAttacks do one after the other.
func breakingAttacks() (attacks []attack) {
	return []attack{{"breaks the protocol in every way there is", func(h *hostileOne) error {
		for _, b := range brokenAnnouncements {
			err := guarded(func() error {
				c := rawConnect(h.library())
				defer c.close()
				c.open("hold x\n")
				b.say(c)
				read(c.pipe)
				return nil
			})
			if err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
			// And as the first thing that is said.
			h.both(func(path string) {
				c := rawConnect(path)
				defer c.close()
				b.say(c)
				_ = c.preface("G", c.far)
				_ = c.write("x\n")
			})
		}
		return nil
	}}}
}

// flipping changes who it is as fast as it can, and says so, while the server is in a scope of its.
var flipping = []attack{
	{"changes as fast as it can", func(h *hostileOne) error {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // for good
			done <- guarded(func() error { h.flip(); return nil })
		}()
		return <-done
	}},
}

func (h *hostileOne) flip() {
	ids := hostileUser(h.number)
	c := rawConnect(h.library())
	defer c.close()
	c.open("follow\n")
	var tokens [2]int
	is := func(n int) {
		must(setThread.setUID(who{uid: ids.UID + uint32(n)}))
		must(setThread.setGID(who{gid: ids.GID + uint32(n)}))
	}
	for n := range tokens {
		is(n)
		tokens[n] = c.token()
	}
	for sequence, begun := uint64(1), time.Now(); time.Since(begun) < time.Second; sequence++ {
		n := int(sequence % 2)
		is(n)
		own := &unix.Ucred{Pid: int32(os.Getpid()), Uid: ids.UID + uint32(n), Gid: ids.GID + uint32(n)}
		switch err := c.sayAs(own, contextNow(sequence), tokens[n]); err {
		case nil:
		case unix.EAGAIN:
			sequence--
			runtime.Gosched()
		default:
			panic(err)
		}
		for n := 1; n > 0; {
			n, _, _, _, _ = unix.Recvmsg(c.pipe, make([]byte, 4096), nil, unix.MSG_DONTWAIT)
		}
	}
}

// withSecond has this process, root's, become a hostile user with a second uid and gid to go to.
func withSecond(h *hostileOne) error {
	saved := hostileUser(h.number)
	saved.UID++
	saved.GID++
	return become(hostileUser(h.number), saved)
}

// connectorFlood changes ids so that the process connector reports it, and starts and ends threads and processes.
var connectorFlood = []attack{
	{"changes its ids 10000 times", func(h *hostileOne) error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		ids := hostileUser(h.number)
		for n := range 10000 {
			if err := setThread.setUID(who{uid: ids.UID + uint32(n%2)}); err != nil {
				return err
			}
		}
		return nil
	}},
	{"starts and ends threads", func(h *hostileOne) error {
		done := make(chan struct{})
		go func() { runtime.LockOSThread(); close(done) }()
		<-done
		return nil
	}},
	{"starts and ends processes", func(h *hostileOne) error {
		return startAndWait("/bin/true")
	}},
}

// killedAttacks have a client be killed, or become another program, in the middle.
func killedAttacks() (attacks []attack) {
	for step, name := range victimSteps {
		attacks = append(attacks, attack{"is killed " + name, func(h *hostileOne) error {
			p, err := role.Start(nil, nil, "hostile victim", string(h.besieged), fmt.Sprint(step))
			if err != nil {
				return err
			}
			_, err = p.Line()
			_ = p.Signal(unix.SIGKILL)
			_ = p.Stop()
			return err
		}})
	}
	return attacks
}

var victimSteps = []string{
	"after connecting", "after the hello", "after the preface", "in a scope", "after many announcements",
	"after a context before its write", "and executes another program",
}

// beVictim is the role of a client that comes to a step and waits there to be killed.
func beVictim(args []string) error {
	b := besieged(args[0])
	var step int
	if _, err := fmt.Sscan(args[1], &step); err != nil {
		return err
	}
	go endWithInput()
	err := guarded(func() error {
		if step < 3 {
			c := rawConnect(b.serve())
			if step > 0 {
				_ = c.say(hello(0, dynamicTracking))
			}
			if step > 1 {
				_ = c.preface("G", c.far)
			}
			return nil
		}
		c := rawConnect(b.library())
		c.open("hold x\n")
		token := c.token()
		switch step {
		case 4:
			for i := range uint64(50) {
				_ = c.sayAs(claim(), contextNow(i+1), token)
			}
		case 5:
			_ = c.sayAs(claim(), contextAt(1, uint64(len("hold x\n")), 0), token)
		case 6:
			for _, fd := range []int{c.pipe, c.near, token} {
				must1(unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0))
			}
			fmt.Println("ready")
			return unix.Exec("/bin/sleep", []string{"sleep", "1000"}, os.Environ())
		}
		return nil
	})
	if err != nil {
		os.Exit(1) // it comes again and again: who started it counts it
	}
	fmt.Println("ready")
	role.AwaitEnd()
	return nil
}
