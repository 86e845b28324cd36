package main

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/role"
)

// The identities that a changing client has in turn.
const (
	firstUID  = 61001
	secondUID = 61002
)

// Ways for a client to change its ids.
const (
	byThread  = "thread"  // a raw call on the thread that wrote
	byProcess = "process" // all threads of the process
)

// changer is the role of a client that opens a pipe, and changes its effective uid once a round: as often as the standard input has a
// byte. Its thread is on the first CPU.
func changer(args []string) error {
	path, how := args[0], args[1]
	b, err := openBoard(args[2])
	if err != nil {
		return err
	}
	c, change, err := connectChanging(path, how)
	if err != nil {
		return err
	}
	defer c.Close()
	order := make([]byte, 1)
	for uid := secondUID; ; uid = firstUID + secondUID - uid {
		if n, err := syscall.Read(0, order); n == 0 || err != nil {
			return err
		}
		for i := range b.seen {
			b.seen[i].Store(0)
		}
		b.changed.Store(now())
		b.round.Add(1)
		if err := change(uid); err != nil {
			return err
		}
	}
}

// connectChanging opens a pipe on the first CPU, and returns what changes the client's effective uid.
func connectChanging(path, how string) (c *guise.Conn, change func(uid int) error, err error) {
	if err := onCPU(0); err != nil {
		return nil, nil, err
	}
	if change, err = changing(how); err != nil {
		return nil, nil, err
	}
	if c, err = openDynamic(path); err != nil {
		return nil, nil, err
	}
	fmt.Println("connected")
	return c, change, nil
}

// openDynamic opens a pipe with dynamic tracking and writes to it, so that its server gets on.
func openDynamic(path string) (*guise.Conn, error) {
	c, err := guise.Dial(path, &guise.QoS{Tracking: guise.Dynamic})
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{0}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// changing makes the client one that may be either user, with one as its real uid and the other as its saved one, and returns what
// changes the effective uid.
func changing(how string) (func(uid int) error, error) {
	const unchanged = ^uintptr(0)
	raw := func(real, effective, saved uintptr) error {
		if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, real, effective, saved); e != 0 {
			return e
		}
		return nil
	}
	switch how {
	case byThread:
		return func(uid int) error { return raw(unchanged, uintptr(uid), unchanged) }, raw(firstUID, firstUID, secondUID)
	case byProcess:
		return func(uid int) error { return syscall.Setresuid(-1, uid, -1) }, syscall.Setresuid(firstUID, firstUID, secondUID)
	}
	return nil, fmt.Errorf("no such way to change: %s", how)
}

// What a flooder does.
const (
	quiet    = iota
	spinning // as busy, and changes nothing
	flooding
	flooderStates
)

// flooder is the role of a client that changes as fast as it can while it is told to.
func flooder(args []string) error {
	b, err := openBoard(args[1])
	if err != nil {
		return err
	}
	c, change, err := connectChanging(args[0], byThread)
	if err != nil {
		return err
	}
	defer c.Close()
	ended := make(chan struct{})
	go func() { role.AwaitEnd(); close(ended) }()
	for uid := secondUID; ; {
		select {
		case <-ended:
			return nil
		default:
		}
		switch b.flood.Load() {
		case quiet:
			time.Sleep(time.Millisecond)
			continue
		case spinning:
			for range 1000 {
				syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
			}
		case flooding:
			for range 100 {
				uid = firstUID + secondUID - uid
				if err := change(uid); err != nil {
					return err
				}
			}
			b.changes.Add(100)
		}
		runtime.Gosched() // raw calls can't be preempted, and its own library has something to do
	}
}

// hop is the role of a server that is in one long scope: on the path that it listens on, with a connection to the next hop if there
// is one, and a busy thread on the second CPU if it is watched.
func hop(args []string) error {
	path, next, watched := args[0], args[1], args[3]
	b, err := openBoard(args[2])
	if err != nil {
		return err
	}
	l, err := guise.Listen(path, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("listening")
	c, err := l.AcceptPipe()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return err
	}
	return c.RunAsClient(func(*guise.Scope) error {
		if next != "" {
			further, err := openDynamic(next)
			if err != nil {
				return err
			}
			defer further.Close()
		}
		if watched == "" {
			fmt.Println("in a scope")
			role.AwaitEnd()
			return nil
		}
		index, err := strconv.Atoi(watched)
		if err != nil {
			return err
		}
		cpu := 1
		if next != "" {
			cpu = 0 // the second is for the last
		}
		return busy(b, index, cpu)
	})
}

// busy notes when the calling thread's ids change, until the standard input ends.
func busy(b *board, index, cpu int) error {
	if err := onCPU(cpu); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { role.AwaitEnd(); close(ended) }() //guise:scope-ok it only waits for the end of standard input
	last, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
	fmt.Println("in a scope")
	for {
		for range 1000 {
			uid, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
			if uid != last {
				b.seen[index].Store(now())
				last = uid
			}
		}
		select {
		case <-ended:
			return nil
		default:
		}
	}
}

// onCPU confines the calling thread, to which the goroutine stays locked, to one of the CPUs that this process began with.
func onCPU(n int) error {
	runtime.LockOSThread()
	for cpu := range len(allCPUs) * 64 {
		if !allCPUs.IsSet(cpu) {
			continue
		}
		if n == 0 {
			var one unix.CPUSet
			one.Set(cpu)
			return unix.SchedSetaffinity(0, &one)
		}
		n--
	}
	return errors.New("this takes two CPUs")
}

var allCPUs = func() (set unix.CPUSet) {
	_ = unix.SchedGetaffinity(0, &set)
	return set
}()
