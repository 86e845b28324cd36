package token_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/without"
	"github.com/guise-project/guise/token"
)

// roles are what the test binary does as another process. Descriptor 3 is one end of a socketpair of the test's.
var roles = map[string]func(){
	// tell says what the token of the peer of descriptor 3 is, and whether it can be worn.
	"tell": tellPeer,
	// pair makes a socketpair, sends one end over descriptor 3 and waits for the end of its standard input.
	"pair": func() {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Sendmsg(3, []byte{'p'}, unix.UnixRights(p[1]), nil, 0)
		}
		if err != nil {
			panic(err)
		}
		io.Copy(io.Discard, os.Stdin)
	},
	"no-peerpidfd":  func() { tellWithout(unix.ENOPROTOOPT, unix.SO_PEERPIDFD) },
	"no-peergroups": func() { tellWithout(unix.ENOPROTOOPT, unix.SO_PEERGROUPS) },
	"no-peercred":   func() { tellWithout(unix.EACCES, unix.SO_PEERCRED) },
	"no-domain":     func() { tellWithout(unix.EACCES, unix.SO_DOMAIN) },
}

func tellWithout(errno syscall.Errno, option int) {
	if err := without.SocketOptionsFail(errno, option); err != nil {
		panic(err)
	}
	tellPeer()
}

func tellPeer() {
	t, err := token.OfDescriptor(3)
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	fmt.Println(t.UID(), t.GID(), t.Groups(), t.Source().PID, t.Capabilities().Permitted, t.Wearable())
}

// socketpair returns the ends of a socketpair that was made by a thread with the given ids and groups; of this process's own
// if groups is nil.
func socketpair(t *testing.T, uid, gid uint32, groups []uint32) (a, b int) {
	t.Helper()
	var p [2]int
	done := make(chan error, 1)
	go func() {
		if groups != nil {
			runtime.LockOSThread() // for good: the thread ends with the goroutine
			unchanged := ^uintptr(0)
			for _, call := range [][4]uintptr{
				{unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0},
				{unix.SYS_SETRESGID, unchanged, uintptr(gid), unchanged},
				{unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged},
			} {
				if _, _, e := syscall.RawSyscall(call[0], call[1], call[2], call[3]); e != 0 {
					done <- e
					return
				}
			}
		}
		var err error
		p, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: " + why)
	}
}

// start starts the test binary in a role with fd as descriptor 3.
func start(t *testing.T, name string, fd int, attr *syscall.SysProcAttr) (cmd *exec.Cmd, stdin io.Closer, stdout *strings.Builder) {
	t.Helper()
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(copied), "descriptor 3")
	defer f.Close()
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", role+"="+name)
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = attr
	stdout = new(strings.Builder)
	cmd.Stdout, cmd.Stderr = stdout, os.Stderr
	if stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, stdin, stdout
}

func tell(t *testing.T, name string, fd int, attr *syscall.SysProcAttr) string {
	t.Helper()
	cmd, stdin, stdout := start(t, name, fd, attr)
	defer stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(stdout.String())
}

func TestTokenOfAPeerIsWhatTheKernelFroze(t *testing.T) {
	many := make([]uint32, 300) // more than the first guess
	for i := range many {
		many[i] = 61000 + uint32(i)
	}
	tests := []struct {
		name     string
		uid, gid uint32
		groups   []uint32
	}{
		{"no groups", 61001, 61002, []uint32{}},
		{"groups", 61001, 61002, []uint32{61003, 61004}},
		{"32 groups", 61001, 61002, many[:32]},
		{"33 groups", 61001, 61002, many[:33]},
		{"300 groups", 61001, 61002, many},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			needRoot(t, "it changes a thread's ids")
			fd, _ := socketpair(t, test.uid, test.gid, test.groups)
			peer, err := token.OfDescriptor(fd)
			if err != nil {
				t.Fatal(err)
			}
			if peer.UID() != test.uid || peer.GID() != test.gid || !slices.Equal(peer.Groups(), test.groups) {
				t.Errorf("it is %d, %d, %d", peer.UID(), peer.GID(), peer.Groups())
			}
			if peer.Source() != (token.Source{Kind: token.FromPeer, PID: os.Getpid()}) {
				t.Errorf("it is from %+v", peer.Source())
			}
			if c := peer.Capabilities(); c != (token.Capabilities{}) {
				t.Errorf("an ordinary user has capabilities %v", c)
			}
			if err := peer.Wearable(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("this process", func(t *testing.T) {
		fd, _ := socketpair(t, 0, 0, nil)
		peer, err := token.OfDescriptor(fd)
		if err != nil {
			t.Fatal(err)
		}
		self, err := token.Self()
		if err != nil {
			t.Fatal(err)
		}
		if !peer.Equal(self) || self.Source().Kind != token.FromThread {
			t.Errorf("the peer is %v, the thread %v from %+v", peer, self, self.Source())
		}
	})
}

func TestTokenOfANetConnection(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{client, server} {
		peer, err := token.Of(c.(syscall.Conn))
		if err != nil || int(peer.UID()) != os.Geteuid() || int(peer.GID()) != os.Getegid() {
			t.Errorf("Of = %v, %v", peer, err)
		}
	}
	server.Close()
	if peer, err := token.Of(server.(syscall.Conn)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Of a closed connection = %v, %v", peer, err)
	}
}

func TestSocketsWhosePeerHasNoIDsGiveNoToken(t *testing.T) {
	socket := func(family, kind int) func(*testing.T) int {
		return func(t *testing.T) int {
			fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Skip(err)
			}
			return fd
		}
	}
	tests := []struct {
		name   string
		make   func(t *testing.T) int
		target error
	}{
		{"TCP", socket(unix.AF_INET, unix.SOCK_STREAM), token.ErrNotWearable},
		{"TCP over IPv6", socket(unix.AF_INET6, unix.SOCK_STREAM), token.ErrNotWearable},
		{"netlink", socket(unix.AF_NETLINK, unix.SOCK_RAW), token.ErrNotWearable},
		{"unconnected stream", socket(unix.AF_UNIX, unix.SOCK_STREAM), token.ErrNotWearable},
		{"unconnected datagrams", socket(unix.AF_UNIX, unix.SOCK_DGRAM), token.ErrNotWearable},
		{"file", func(t *testing.T) int {
			fd, err := unix.Open("/dev/null", unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			return fd
		}, unix.ENOTSOCK},
		{"nothing", func(*testing.T) int { return -1 }, unix.EBADF},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fd := test.make(t)
			defer unix.Close(fd)
			if peer, err := token.OfDescriptor(fd); peer != nil || !errors.Is(err, test.target) {
				t.Errorf("OfDescriptor = %v, %v, want error %v", peer, err, test.target)
			}
			if of, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); of != 0 && of != unix.AF_UNIX {
				if _, err := token.OfDescriptor(fd); err == nil || !strings.Contains(err.Error(), fmt.Sprint("family ", of)) {
					t.Errorf("OfDescriptor: %v, want an error that names the family", err)
				}
			}
		})
	}
}

func TestFailingQuestionsGiveNoToken(t *testing.T) {
	fd, _ := socketpair(t, 0, 0, nil)
	for role, says := range map[string]string{
		"no-peergroups": "error: token of a peer: asking for its groups (SO_PEERGROUPS)",
		"no-peercred":   "error: token of a peer: asking for its ids (SO_PEERCRED)",
		"no-domain":     "error: token of a peer: asking for the socket's family",
	} {
		if got := tell(t, role, fd, nil); !strings.HasPrefix(got, says) {
			t.Errorf("%s: %s", role, got)
		}
	}
}

func TestPeerOutsideThePIDNamespaceIsNeverWorn(t *testing.T) {
	needRoot(t, "it makes a pid namespace")
	for _, uid := range []uint32{0, 61001} {
		fd, _ := socketpair(t, uid, uid, []uint32{uid})
		needNamespaces(t, unix.CLONE_NEWPID)
		got := tell(t, "tell", fd, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID})
		want := fmt.Sprintf("%d %d [%d] 0 none this context is never worn: the kernel reports no pid", uid, uid, uid)
		if !strings.HasPrefix(got, want) {
			t.Errorf("the token is %s, want %s", got, want)
		}
	}
}

func TestIDsWithoutAMappingAreNeverWorn(t *testing.T) {
	needRoot(t, "it changes a thread's ids")
	for _, test := range []struct {
		uid, gid uint32
		groups   []uint32
		says     string
	}{
		{65534, 61001, []uint32{}, "uid 65534"},
		{61001, 65534, []uint32{}, "gid 65534"},
		{61001, 61001, []uint32{61001, 65534}, "supplementary group 65534"},
	} {
		fd, _ := socketpair(t, test.uid, test.gid, test.groups)
		peer, err := token.OfDescriptor(fd)
		if err != nil {
			t.Fatal(err)
		}
		if err := peer.Wearable(); !errors.Is(err, token.ErrNotWearable) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%d, %d, %d: %v", test.uid, test.gid, test.groups, err)
		}
		if peer.AllowForeignRoot() != peer {
			t.Error("AllowForeignRoot lifts what is no foreign root's")
		}
	}
	t.Run("in a user namespace", func(t *testing.T) {
		needNamespaces(t, unix.CLONE_NEWUSER)
		fd, _ := socketpair(t, 61005, 61005, []uint32{})
		got := tell(t, "tell", fd, &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		})
		if !strings.HasPrefix(got, "65534 65534") || !strings.Contains(got, "never worn: uid 65534") {
			t.Errorf("the token is %s", got)
		}
	})
}

// rootPeer returns a socket whose peer is another process of uid 0.
func rootPeer(t *testing.T, attr *syscall.SysProcAttr) (fd int, end func()) {
	t.Helper()
	ours, theirs := socketpair(t, 0, 0, nil)
	cmd, stdin, _ := start(t, "pair", theirs, attr)
	ended := false
	end = func() {
		if !ended {
			ended = true
			stdin.Close()
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(end)
	control := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(ours, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]) })
	return fds[0], end
}

func TestRootIsOnlyWornWhereItIsSeenToBeThisSystems(t *testing.T) {
	needRoot(t, "the peers are root")
	own := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	tests := []struct {
		name string
		attr *syscall.SysProcAttr
		says string
		caps bool
	}{
		{"this system's", nil, "", true},
		{"another mount namespace's", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}, "another mount namespace", true},
		{"another user namespace's", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: own, GidMappings: own}, "another user namespace", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.attr != nil {
				needNamespaces(t, test.attr.Cloneflags)
			}
			fd, end := rootPeer(t, test.attr)
			peer, err := token.OfDescriptor(fd)
			if err != nil {
				t.Fatal(err)
			}
			if got := peer.Capabilities().Permitted != 0; got != test.caps {
				t.Errorf("its capabilities are %v", peer.Capabilities())
			}
			err = peer.Wearable()
			if test.says == "" {
				if err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, token.ErrNotWearable) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("Wearable: %v, want an error that says %q", err, test.says)
			}
			if err := peer.AllowForeignRoot().Wearable(); err != nil {
				t.Errorf("with AllowForeignRoot: %v", err)
			}
			if test.says != "" && peer.Wearable() == nil {
				t.Error("AllowForeignRoot changed the token itself")
			}
			end()
			if again := peer.LookAgain(fd); again.Capabilities() != (token.Capabilities{}) {
				t.Errorf("once it has gone its capabilities are %v", again.Capabilities())
			}
			late, err := token.OfDescriptor(fd)
			if err != nil {
				t.Fatal(err)
			}
			if err := late.Wearable(); !errors.Is(err, token.ErrNotWearable) || late.Capabilities() != (token.Capabilities{}) {
				t.Errorf("looked at for the first time once it has gone: %v, capabilities %v", err, late.Capabilities())
			}
		})
	}
	t.Run("one that can't be seen", func(t *testing.T) {
		fd, _ := rootPeer(t, nil)
		got := tell(t, "no-peerpidfd", fd, nil)
		if !strings.Contains(got, " none this context is never worn: uid 0 whose namespaces can't be seen (SO_PEERPIDFD") {
			t.Errorf("the token is %s", got)
		}
	})
}

func TestRootsCapabilitiesAreThoseItIsSeenToHave(t *testing.T) {
	needRoot(t, "the peer is root")
	fd, _ := socketpair(t, 0, 0, nil)
	peer, err := token.OfDescriptor(fd)
	if err != nil {
		t.Fatal(err)
	}
	if again := peer.LookAgain(fd); again != peer {
		t.Errorf("looked at again, unchanged: %v", again)
	}
	if c := peer.Capabilities(); !c.Effective.Has(token.CapSetuid) {
		t.Errorf("root's capabilities are %v", c)
	}
	user, _ := token.FromIDs(61001, 61001, nil)
	if user.LookAgain(fd) != user {
		t.Error("LookAgain changes an ordinary user's token")
	}
}

func needNamespaces(t *testing.T, flags uintptr) {
	t.Helper()
	if err := without.Namespaces(flags); err != nil {
		t.Skipf("this machine lets nobody make the namespaces %#x: %v", flags, err)
	}
}

// TestEqualLongListsOfGroupsAreKeptOnce has a process show 65536 groups as often as it likes.
func TestEqualLongListsOfGroupsAreKeptOnce(t *testing.T) {
	needRoot(t, "it changes a thread's groups")
	long := make([]uint32, 65536)
	for i := range long {
		long[i] = 100000 + uint32(i)
	}
	other := slices.Clone(long)
	other[0] = 7
	peer := func(groups []uint32) *token.Token {
		fd, _ := socketpair(t, 61001, 61002, groups)
		peer, err := token.OfDescriptor(fd)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(peer.Groups(), groups) {
			t.Fatalf("a peer of %d groups has %d, or others", len(groups), len(peer.Groups()))
		}
		return peer
	}
	first := peer(long)
	if got := first.Bytes(nil); got < 4*len(long) {
		t.Errorf("a token of %d groups takes %d bytes", len(long), got)
	}
	another := peer(other)
	same := peer(long)
	const little = 4096
	if got := same.Bytes(first); got > little {
		t.Errorf("a second token of the same %d groups takes %d bytes beside the first, want at most %d", len(long), got, little)
	}
	if got := another.Bytes(first); got < 4*len(long) {
		t.Errorf("a token of %d other groups takes %d bytes beside the first", len(long), got)
	}
	if got := same.AsProof().Restrict(token.Statement{Level: token.Identification}).Bytes(first); got > little {
		t.Errorf("a copy that allows less takes %d bytes beside the first, want at most %d", got, little)
	}
	// What a caller gets is the caller's.
	same.Groups()[0] = 1
	if got := first.Groups(); !slices.Equal(got, long) {
		t.Error("who changed the groups that it got has changed another token")
	}
	runtime.GC()
	if got := peer(long).Bytes(first); got > little {
		t.Errorf("after a collection a token of the same groups takes %d bytes beside the first, want at most %d", got, little)
	}
}

func TestBytesCountAWayAndAnOrigin(t *testing.T) {
	here, err := token.FromIDs(61001, 61001, nil)
	if err != nil {
		t.Fatal(err)
	}
	via := []token.Hop{{Program: strings.Repeat("p", 200)}}
	origin := &token.Origin{Account: "alice", SIDs: []string{strings.Repeat("S", 60000)}}
	came := here.Through(via, origin)
	if got := came.Bytes(here); got < 60200 {
		t.Errorf("a token with a way and an origin of 60200 bytes takes %d", got)
	}
	if got := came.Restrict(token.Statement{Level: token.Identification}).Bytes(came); got > 1000 {
		t.Errorf("a copy of it takes %d bytes beside it", got)
	}
	if got := (*token.Token)(nil).Bytes(nil); got != 0 {
		t.Errorf("no token takes %d bytes", got)
	}
}
