package guise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/quota"
)

// mostGroups is as many as the kernel lets a process have.
const mostGroups = 65536

// crowdWrites is how much the crowd writes on each connection when it is told to go on: over the places of all that it announces.
const crowdWrites = 2000

// crowd is a client of many connections that announces, on each, contexts that begin at places which it has not written yet.
type crowd struct {
	uid         uint32
	connections int
	each        int // announcements on a connection
	lists       int // different lists of groups, which the announcements have in turn; each connection begins at another
	groups      int // in a list
}

func (w crowd) start(t *testing.T, l *Listener) (*rawProcess, []*Conn) {
	t.Helper()
	p := startRaw(t, "crowd", asRoot(), []string{"GUISE_TEST_PATH=" + l.Addr().String(),
		fmt.Sprintf("GUISE_TEST_CROWD=%d %d %d %d %d", w.uid, w.connections, w.each, w.lists, w.groups)})
	conns := make([]*Conn, w.connections)
	for i := range conns {
		var err error
		if conns[i], err = l.AcceptPipe(); err != nil { // it first makes its lists, which takes seconds
			t.Fatal(err)
		}
		t.Cleanup(func() { conns[i].Close() })
		if n, err := conns[i].Read(make([]byte, 8)); n != 1 || err != nil {
			t.Fatalf("the first read of connection %d: %d bytes, %v", i, n, err)
		}
	}
	return p, conns
}

var _ = addRole("crowd", func() {
	var w crowd
	must1(fmt.Sscan(os.Getenv("GUISE_TEST_CROWD"), &w.uid, &w.connections, &w.each, &w.lists, &w.groups))
	maker := &rawClient{}
	runtime.LockOSThread()
	const unchanged = ^uintptr(0)
	is := func(uid uint32) {
		_, _, e := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged)
		if e == 0 {
			_, _, e = unix.RawSyscall(unix.SYS_SETRESGID, unchanged, uintptr(uid), unchanged)
		}
		if e != 0 {
			panic(e)
		}
	}
	sockets := make([]int, w.lists)
	list := make([]uint32, w.groups)
	for i := range sockets {
		for j := range list {
			list[j] = 100000 + uint32(i*w.groups+j)
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(list)), uintptr(unsafe.Pointer(unsafe.SliceData(list))), 0); e != 0 {
			panic(e)
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, unchanged, uintptr(w.uid), unchanged); e != 0 {
			panic(e)
		}
		is(w.uid)
		sockets[i] = maker.token()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, 0, unchanged); e != 0 {
			panic(e)
		}
	}
	must(syscall.Setresgid(int(w.uid), int(w.uid), int(w.uid)))
	become(int(w.uid), int(w.uid), int(w.uid))
	var all sync.WaitGroup
	var pipes []int
	for i := range w.connections {
		c := &rawClient{pipe: rawConnect(os.Getenv("GUISE_TEST_PATH"))}
		c.near, c.far = rawPair(unix.SOCK_SEQPACKET)
		c.open()
		pipes = append(pipes, c.pipe)
		inGroup(&all, func() {
			for n := range w.each {
				for {
					err := c.announceAt(uint64(n+1), uint64(1000+n), sockets[(i*w.lists/w.connections+n)%w.lists], c.claim())
					if !errors.Is(err, unix.ETOOMANYREFS) && !errors.Is(err, unix.EINTR) {
						must(err)
						break
					}
					time.Sleep(time.Millisecond) // others of this user have as many on their way as may be
				}
			}
		})
	}
	all.Wait()
	fmt.Println("sent")
	maker.await()
	for _, pipe := range pipes {
		if _, err := unix.Write(pipe, make([]byte, crowdWrites)); err != unix.EPIPE { // or the server has closed it
			must(err)
		}
		_ = unix.Shutdown(pipe, unix.SHUT_WR)
	}
	io.Copy(io.Discard, os.Stdin)
})

// takeAll has connections take off all they may until the client has sent everything.
func takeAll(t *testing.T, p *rawProcess, conns []*Conn) {
	t.Helper()
	sent := make(chan struct{})
	go func() { defer close(sent); p.out.line() }()
	more := func() {
		for i, c := range conns {
			c.server.mu.Lock()
			err := c.server.takeOff(c)
			c.server.mu.Unlock()
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
		}
	}
	for begun, done := time.Now(), false; !done; time.Sleep(time.Millisecond) {
		if time.Since(begun) > hanging {
			t.Fatalf("after %v the client has not sent all: as little is taken off its channels as of a client whose lists differ", hanging)
		}
		select {
		case <-sent:
			done = true
		default:
		}
		more()
	}
	for range 8 {
		more()
	}
}

// heap returns how many bytes of Go's heap are in use.
func heap() int64 {
	var m runtime.MemStats
	for range 3 { // what finalizers and cleanups let go of, too
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestWaitingContextsOfManyGroupsTakeLittleMemory(t *testing.T) {
	needRoot(t, "the client has groups")
	for _, test := range []struct {
		name  string
		crowd crowd
		most  int64 // bytes
		least int   // how many wait
	}{
		{"of one list", crowd{61001, 8, 512, 1, mostGroups}, 14 << 20, 8 * 512},
		{"of many lists", crowd{61001, 8, 48, 80, mostGroups}, 14 << 20, 8},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := listenAt(t, nil)
			leftover.ByThis(t, func() {
				before := heap()
				p, conns := test.crowd.start(t, l)
				takeAll(t, p, conns)
				waiting := 0
				for _, c := range conns {
					waiting += len(c.server.known.following.waiting)
				}
				took := heap() - before
				t.Logf("%d announcements wait, and take %d KiB", waiting, took>>10)
				if waiting < test.least {
					t.Errorf("%d announcements wait, want %d at least", waiting, test.least)
				}
				if took > test.most {
					t.Errorf("%d waiting announcements of %d connections take %d MiB, want at most %d", waiting, len(conns), took>>20, test.most>>20)
				}
				for _, c := range conns {
					c.Close()
				}
				if kept := keptOfUsers.of(quota.User(test.crowd.uid)); kept != 0 {
					t.Errorf("%d bytes are counted for a user whose connections were closed", kept)
				}
				p.resume()
				p.end()
			})
		})
	}
}
