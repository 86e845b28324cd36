package guise_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// failing is a system call that is made to fail, in all threads of a process and for good.
type failing struct {
	call  uintptr
	errno syscall.Errno
	// with is the number of the argument that has to be value, -1 if it fails with any.
	with  int
	value uint32
}

var failings = map[string]failing{
	"socketpair":                {unix.SYS_SOCKETPAIR, unix.EMFILE, -1, 0},
	"socketpair for memory":     {unix.SYS_SOCKETPAIR, unix.ENOMEM, -1, 0},
	"sendmsg":                   {unix.SYS_SENDMSG, unix.ENOBUFS, -1, 0},
	"sendmsg for descriptors":   {unix.SYS_SENDMSG, unix.ETOOMANYREFS, -1, 0},
	"openat":                    {unix.SYS_OPENAT, unix.ENFILE, -1, 0},
	"pread64":                   {unix.SYS_PREAD64, unix.EIO, -1, 0},
	"netlink sockets":           {unix.SYS_SOCKET, unix.EPERM, 0, unix.AF_NETLINK},
	"recvfrom":                  {unix.SYS_RECVFROM, unix.ENOMEM, -1, 0},
	"recvmsg for descriptors":   {unix.SYS_RECVMSG, unix.EMFILE, -1, 0},
	"recvmsg for memory":        {unix.SYS_RECVMSG, unix.ENOMEM, -1, 0},
	"SO_DOMAIN":                 {unix.SYS_GETSOCKOPT, unix.EACCES, 2, unix.SO_DOMAIN},
	"SO_TYPE":                   {unix.SYS_GETSOCKOPT, unix.EACCES, 2, unix.SO_TYPE},
	"SO_PEERCRED":               {unix.SYS_GETSOCKOPT, unix.ENOMEM, 2, unix.SO_PEERCRED},
	"SO_PEERGROUPS":             {unix.SYS_GETSOCKOPT, unix.ENOMEM, 2, unix.SO_PEERGROUPS},
	"SO_PEERPIDFD":              {unix.SYS_GETSOCKOPT, unix.ENOMEM, 2, unix.SO_PEERPIDFD},
	"SO_PEERPIDFD, descriptors": {unix.SYS_GETSOCKOPT, unix.EMFILE, 2, unix.SO_PEERPIDFD},
	"getpeername":               {unix.SYS_GETPEERNAME, unix.ENOBUFS, -1, 0},
	"fstatfs":                   {unix.SYS_FSTATFS, unix.ENOSYS, -1, 0},
	"epoll_ctl to add":          {unix.SYS_EPOLL_CTL, unix.ENOMEM, 1, unix.EPOLL_CTL_ADD},
	"rt_tgsigqueueinfo":         {unix.SYS_RT_TGSIGQUEUEINFO, unix.EAGAIN, -1, 0},
}

// outOfDescriptors is no call that fails: the process has no descriptors left.
const outOfDescriptors = "no descriptors left"

func (f failing) install() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	equal := func(k uint32, otherwise uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: otherwise, K: k}
	}
	end := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	fails, passes := end(unix.SECCOMP_RET_ERRNO|uint32(f.errno)), end(unix.SECCOMP_RET_ALLOW)
	program := []unix.SockFilter{load(0), equal(uint32(f.call), 1), fails, passes}
	if f.with >= 0 {
		program = []unix.SockFilter{load(0), equal(uint32(f.call), 3), load(uint32(16 + 8*f.with)), equal(f.value, 1), fails, passes}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: unsafe.SliceData(program)}
	if r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter))); e != 0 || r != 0 {
		return fmt.Errorf("seccomp(2): %w, thread %d", e, r)
	}
	return nil
}

var _ = addRole("client whose calls fail", func() {
	must(syscall.Setgroups([]int{61101}))
	must(syscall.Setresgid(61001, 61001, 61001))
	must(syscall.Setresuid(61001, 61001, 61002))
	if early := os.Getenv("GUISE_TEST_FAILS"); early != "" {
		must(failings[early].install())
	}
	near := must1(guise.Dial(os.Getenv("GUISE_TEST_PATH"), dynamic))
	must1(near.Write([]byte("x")))
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		order, rest, _ := strings.Cut(orders.Text(), " ")
		switch order {
		case "fail":
			must(failings[rest].install())
			fmt.Println("done")
		case "become":
			uid := 0
			must1(fmt.Sscan(rest, &uid))
			must(syscall.Setresuid(-1, uid, -1))
			fmt.Println("done")
		case "flip": // many times
			for i := range 400 {
				must(syscall.Setresuid(-1, 61001+i%2, -1))
			}
			must(syscall.Setresuid(-1, 61002, -1))
			fmt.Println("done")
		case "write":
			_, err := near.Write([]byte("y"))
			fmt.Println("error:", oneLine(err))
		}
	}
})

// TestAttackOfAClientWhoseCallsFail has calls of the client's side fail while the server is in a scope.
func TestAttackOfAClientWhoseCallsFail(t *testing.T) {
	needRoot(t)
	before, after := identity(t, 61001, 61001, 61101), identity(t, 61002, 61001, 61101)
	for _, test := range []struct {
		fails string
		early bool // before it opens the connection
		// A change between writes is found all the same, or with the next write; or it can't be shown, and then nothing is written.
		alone, write bool
	}{
		{"netlink sockets", true, true, true},
		{"recvfrom", true, true, true},
		{"openat", true, false, true},
		{"pread64", false, false, true},
		{"pread64", true, false, true},
		{"socketpair", false, false, false},
		{"socketpair for memory", false, false, false},
		{"sendmsg", false, false, false},
		{"sendmsg for descriptors", false, false, false},
	} {
		t.Run(fmt.Sprintf("%s, from before the open: %v", test.fails, test.early), func(t *testing.T) {
			l := listenOn(t, nil)
			leftover.ByThis(t, func() {
				env := []string{"GUISE_TEST_PATH=" + l.Addr().String()}
				if test.early {
					env = append(env, "GUISE_TEST_FAILS="+test.fails)
				}
				client := startRole(t, "client whose calls fail", nil, env...)
				server := accept(t, l)
				defer server.Close()
				inside(t, server, func(*guise.Scope) {
					is(t, "at first", before)
					if !test.early {
						client.tell("fail " + test.fails)
					}
					client.tell("become 61002")
					if test.alone {
						becomes(t, "after the client changed", after)
					}
					said := client.tell("write")
					switch {
					case test.write && said != "error: <nil>":
						t.Errorf("the client writes: %s", said)
					case test.write:
						becomes(t, "after the client changed and wrote", after)
						reads(t, server)
					case said == "error: <nil>":
						t.Error("the client has written under a context that it can't show")
					default:
						stays(t, "after the client changed and could not say so", before)
					}
				})
				want := before
				if test.write {
					want = after
				}
				inside(t, server, func(*guise.Scope) { is(t, "in the next scope", want) })
				server.Close()
				client.end()
			})
		})
	}
}

var _ = addRole("server whose calls fail", func() {
	t := roleT{}
	l, _ := roleServer(guise.ListenConfig{})
	fmt.Println(l.Addr())
	server := accept(t, l)
	orders := bufio.NewScanner(os.Stdin)
	nobody := must1(token.FromIDs(4294967293, 4294967293, nil))
	before, after := must1(token.FromIDs(61001, 61001, []uint32{61101})), must1(token.FromIDs(61002, 61001, []uint32{61101}))
	fails, then := os.Getenv("GUISE_TEST_FAILS"), os.Getenv("GUISE_TEST_THEN")
	must(server.RunAsClient(func(*guise.Scope) error {
		is(t, "at first", before)
		orders.Scan()
		installed := make(chan error)
		go func() { // as the server
			if fails == outOfDescriptors {
				useUpDescriptors()
				installed <- nil
				return
			}
			installed <- failings[fails].install()
		}()
		must(<-installed)
		fmt.Println("done")
		orders.Scan()                  // when the client has changed
		if fails == outOfDescriptors { // so nothing can be looked at
			until(t, "out of descriptors the thread has to become nobody", func() (string, bool) {
				uid := unix.Geteuid()
				return fmt.Sprint(uid), uint32(uid) == nobody.UID()
			})
			letDescriptorsGo()
		}
		if then == "nobody's" {
			becomes(t, "when "+fails+" fails", nobody)
		}
		return nil
	}))
	if now := threadIDs(); !strings.HasPrefix(now, "0 0") {
		must(fmt.Errorf("out of the scope the thread is %s", now))
	}
	if then == "nobody's" {
		err := server.RunAsClient(func(*guise.Scope) error { return errors.New("a function ran as " + threadIDs()) })
		if !errors.Is(err, guise.ErrContextLost) {
			must(fmt.Errorf("the next entry: %w", err))
		}
	} else {
		until(t, "the next entry has to follow", func() (got string, ok bool) {
			must(server.RunAsClient(func(*guise.Scope) error { got = threadIDs(); return nil }))
			return got, got == shows(after)
		})
	}
	fmt.Println("all is well")
})

// TestAttackOfAServerWhoseCallsFail has calls of the server fail while it is in a scope and its client changes.
func TestAttackOfAServerWhoseCallsFail(t *testing.T) {
	needRoot(t)
	for _, test := range []struct{ fails, then string }{
		{"recvmsg for descriptors", "nobody's"},
		{"recvmsg for memory", "nobody's"},
		{"SO_DOMAIN", "nobody's"},
		{"SO_TYPE", "nobody's"},
		{"SO_PEERCRED", "nobody's"},
		{"SO_PEERGROUPS", "nobody's"},
		{"SO_PEERPIDFD", "nobody's"},
		{"SO_PEERPIDFD, descriptors", "nobody's"},
		{"getpeername", "nobody's"},
		{"fstatfs", "nobody's"},
		{outOfDescriptors, "nobody's"},
		{"epoll_ctl to add", "at the next entry"},
		{"rt_tgsigqueueinfo", "at the next entry"},
	} {
		t.Run(fmt.Sprintf("%s: %s", test.fails, test.then), func(t *testing.T) {
			server := startRole(t, "server whose calls fail", nil,
				"GUISE_TEST_DIR="+testdir.Open(t, 0o755), "GUISE_TEST_FAILS="+test.fails, "GUISE_TEST_THEN="+test.then)
			path, err := server.said.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			client := startRole(t, "client whose calls fail", nil, "GUISE_TEST_PATH="+strings.TrimSpace(path))
			server.tell("fail")
			if strings.HasPrefix(test.fails, "epoll_ctl") {
				client.tell("flip") // so that the channel has to rest
			} else {
				client.tell("become 61002")
			}
			if said := server.tell("look"); said != "all is well" {
				t.Errorf("the server says %s", said)
			}
			client.end()
			server.end()
		})
	}
}
