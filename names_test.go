package guise

import (
	"context"
	"errors"
	"fmt"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/pipename"
	"github.com/guise-project/guise/internal/testdir"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/token"
)

func TestNamesOfPipes(t *testing.T) {
	long := strings.Repeat("n", pipename.Longest)
	tests := []struct {
		name, want string // the folded name or the path
		says       string // of the error
	}{
		{"spool", "spool", ""},
		{"Spool", "spool", ""},
		{"A.b_c-9", "a.b_c-9", ""},
		{"...", "...", ""},
		{`\\.\pipe\spool`, "spool", ""},
		{`\\.\pipe\Spool`, "spool", ""},
		{`\\.\PIPE\SPOOL`, "spool", ""},
		{long, long, ""},
		{"./spool", "spool", ""},
		{"/run/x/../spool", "/run/spool", ""},
		{"", "", "needs a name"},
		{".", "", "can't be a pipe's name"},
		{"..", "", "can't be a pipe's name"},
		{`\\.\pipe\..`, "", "can't be a pipe's name"},
		{long + "n", "", "64 bytes, this one has 65"},
		{"spool x", "", "' '"},
		{"spöol", "", "letters"},
		{"spool\x00", "", `'\x00'`},
		{"a:b", "", "':'"},
		{`pipe\spool`, "", `'\\'`},
		{`\pipe\spool`, "", `'\\'`},
		{`\\.\pipe\`, "", "needs a name"},
		{`\\.\pipe`, "", "needs a name"},
		{`\\.\pipe\a\b`, "", `'\\'`},
		{`\\.\mailslot\spool`, "", "is no pipe"},
		{`\\HOST\pipe\spool`, "", "another machine"},
		{`\\`, "", "is no pipe"},
		{"/" + strings.Repeat("p", maxPath), "", "108 bytes long"},
		{"/run/a\x00b", "", "NUL"},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%.20q", test.name), func(t *testing.T) {
			a, err := parseAddress(test.name)
			if test.says != "" {
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("parseAddress = %+v, %v; want an error that says %q", a, err, test.says)
				}
				// Listening and dialling ask the same.
				if l, err := Listen(test.name, nil); err == nil {
					l.Close()
					t.Error("Listen takes it")
				}
				if c, err := Dial(test.name, nil); err == nil {
					c.Close()
					t.Error("Dial takes it")
				}
				return
			}
			if err != nil || a.name+a.path != test.want {
				t.Errorf("parseAddress = %+v, %v, want %q", a, err, test.want)
			}
		})
	}
}

func TestNameOfALiveServerIsTaken(t *testing.T) {
	for _, kind := range []struct {
		name          string
		first, second bool
	}{{"bytes", false, false}, {"messages", true, true}, {"bytes over messages", true, false}, {"messages over bytes", false, true}} {
		t.Run(kind.name, func(t *testing.T) {
			dir := testdir.Open(t, 0o755)
			first, err := Listen("spool", &ListenConfig{Dir: dir, Message: kind.first})
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			leftover.ByThis(t, func() {
				if l, err := Listen("SPOOL", &ListenConfig{Dir: dir, Message: kind.second}); !errors.Is(err, ErrPipeTaken) {
					t.Errorf("Listen = %v, %v, want ErrPipeTaken", l, err)
				}
				// The first must have kept its name.
				c, err := (&Dialer{Dir: dir}).Dial(context.Background(), "spool")
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				acceptFrom(t, first).Close()
			})
		})
	}
}

// abandon leaves a socket at path that nobody listens on.
func abandon(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestSocketThatADeadServerLeftIsReplaced(t *testing.T) {
	dir := testdir.Open(t, 0o755)
	path := filepath.Join(dir, "spool")
	abandon(t, path)
	d := &Dialer{Dir: dir}
	if c, err := d.Dial(context.Background(), "spool"); !errors.Is(err, ErrNobodyListens) {
		t.Errorf("Dial of a dead server's pipe = %v, %v, want ErrNobodyListens", c, err)
	}
	l, err := Listen("spool", &ListenConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Dial(context.Background(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	l.Close()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the directory has %v, %v after Close", left, err)
	}
}

func TestWhatIsNoSocketIsNeverRemoved(t *testing.T) {
	makers := map[string]func(path string) error{
		"file":      func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return os.Symlink("elsewhere", path) },
		"link to a dead socket": func(path string) error {
			other := filepath.Join(filepath.Dir(path), "other")
			fd := rawSocket(unix.AF_UNIX, unix.SOCK_STREAM)
			defer unix.Close(fd)
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: other}); err != nil {
				return err
			}
			return os.Symlink(other, path)
		},
		"FIFO": func(path string) error { return unix.Mkfifo(path, 0o600) },
	}
	for name, make := range makers {
		t.Run(name, func(t *testing.T) {
			dir := testdir.Open(t, 0o755)
			path := filepath.Join(dir, "spool")
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(path)
			if l, err := Listen("spool", &ListenConfig{Dir: dir}); err == nil || !strings.Contains(err.Error(), "no socket") {
				t.Errorf("Listen = %v, %v", l, err)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("what was in the way is no longer there: %v", err)
			}
		})
	}
}

func TestCloseLeavesASuccessorsSocketAlone(t *testing.T) {
	dir := testdir.Open(t, 0o755)
	path := filepath.Join(dir, "spool")
	l, err := Listen("spool", &ListenConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen("spool", &ListenConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's socket is gone: %v", err)
	}
}

func TestOfServersThatRaceForADeadOnesNameOneWins(t *testing.T) {
	dir := testdir.Open(t, 0o755)
	path := filepath.Join(dir, "spool")
	leftover.ByThis(t, func() {
		for round := range 30 {
			abandon(t, path)
			const racers = 8
			var listeners [racers]*Listener
			var errs [racers]error
			var start, done sync.WaitGroup
			start.Add(1)
			for i := range racers {
				done.Add(1)
				go func() {
					defer done.Done()
					start.Wait()
					listeners[i], errs[i] = Listen("spool", &ListenConfig{Dir: dir})
				}()
			}
			start.Done()
			done.Wait()
			won := 0
			for i, l := range listeners {
				if l != nil {
					won++
					defer l.Close()
				} else if !errors.Is(errs[i], ErrPipeTaken) {
					t.Errorf("round %d: %v", round, errs[i])
				}
			}
			if won != 1 {
				t.Fatalf("round %d: %d servers won: %v", round, won, errs)
			}
			c, err := (&Dialer{Dir: dir}).Dial(context.Background(), "spool")
			if err != nil {
				t.Fatalf("round %d: the winner can't be reached: %v", round, err)
			}
			c.Close()
			for _, l := range listeners {
				if l != nil {
					l.Close()
				}
			}
		}
	})
}

func TestProcessesThatRaceForADeadOnesNameOneWins(t *testing.T) {
	dir := testdir.Open(t, 0o755)
	for range 5 {
		abandon(t, filepath.Join(dir, "spool"))
		var racers []*rawProcess
		for range 4 {
			racers = append(racers, startRaw(t, "racer", nil, []string{"GUISE_TEST_DIR=" + dir}))
		}
		for _, p := range racers {
			p.resume()
		}
		// Each says how it went once all have been started, and the winner keeps the name till all have.
		outcomes := map[string]int{}
		for _, p := range racers {
			outcomes[p.out.line()]++
		}
		for _, p := range racers {
			p.end()
		}
		if outcomes["won"] != 1 || outcomes["taken"] != len(racers)-1 {
			t.Fatalf("the race ended %v", outcomes)
		}
	}
}

var _ = addRole("racer", func() {
	os.Stdin.Read(make([]byte, 1))
	l, err := Listen("spool", &ListenConfig{Dir: os.Getenv("GUISE_TEST_DIR")})
	switch {
	case err == nil:
		fmt.Println("won")
	case errors.Is(err, ErrPipeTaken):
		fmt.Println("taken")
	default:
		fmt.Println(err)
	}
	os.Stdin.Read(make([]byte, 1))
	if l != nil {
		l.Close()
	}
})

func TestSocketHasTheModeAndGroupThatWereAskedFor(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	group := strconv.Itoa(os.Getegid())
	wantGroup := uint32(os.Getegid())
	if os.Geteuid() == 0 {
		group, wantGroup = "61003", 61003
	}
	groups := map[string]uint32{"": uint32(os.Getegid()), group: wantGroup}
	if g, err := user.LookupGroupId(strconv.Itoa(os.Getegid())); err == nil {
		groups[g.Name] = uint32(os.Getegid())
	}
	for _, mode := range []struct{ asked, want fs.FileMode }{{0, 0o666}, {0o600, 0o600}, {0o660, 0o660}, {0o222, 0o222}} {
		for group, want := range groups {
			t.Run(fmt.Sprintf("%v %s", mode.asked, group), func(t *testing.T) {
				dir := testdir.Open(t, 0o755)
				l, err := Listen("spool", &ListenConfig{Dir: dir, Mode: mode.asked, Group: group})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				info, err := os.Lstat(filepath.Join(dir, "spool"))
				if err != nil {
					t.Fatal(err)
				}
				if got := info.Mode(); got != mode.want|fs.ModeSocket {
					t.Errorf("the mode is %v, want %v", got, mode.want)
				}
				if got := info.Sys().(*syscall.Stat_t).Gid; got != want {
					t.Errorf("the group is %d, want %d", got, want)
				}
			})
		}
	}
	t.Run("no such group", func(t *testing.T) {
		dir := testdir.Open(t, 0o755)
		if l, err := Listen("spool", &ListenConfig{Dir: dir, Group: "guise-no-such-group"}); err == nil {
			l.Close()
			t.Error("Listen takes it")
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("the directory has %v, %v", left, err)
		}
	})
}

func TestModeKeepsOthersOut(t *testing.T) {
	needRoot(t, "a client of another user")
	l := listenAt(t, &ListenConfig{Mode: 0o600})
	who, err := token.FromIDs(61001, 61001, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = RunAs(who, func(*Scope) error {
		c, err := Dial(l.Addr().String(), nil)
		if err == nil {
			c.Close()
		}
		return err
	})
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Dial: %v, want permission denied", err)
	}
}

func TestDialSaysWhatIsWrong(t *testing.T) {
	dir := testdir.Open(t, 0o755)
	d := &Dialer{Dir: dir}
	abandon(t, filepath.Join(dir, "dead"))
	full, err := Listen("full", &ListenConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	control(full.sockets, func(fd int) { err = unix.Listen(fd, 0) })
	if err != nil {
		t.Fatal(err)
	}
	waiting, err := d.Dial(context.Background(), "full")
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	soon, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	tests := []struct {
		name string
		ctx  context.Context
		is   []error
	}{
		{"none", context.Background(), []error{ErrNoPipe}},
		{"dead", context.Background(), []error{ErrNobodyListens}},
		{"full", soon, []error{ErrBusy, context.DeadlineExceeded}},
		{"full", ended, []error{context.Canceled}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			leftover.ByThis(t, func() {
				c, err := d.Dial(test.ctx, test.name)
				var op *OpError
				if !errors.As(err, &op) || op.Op != "dial" || op.Pipe != test.name {
					t.Fatalf("Dial = %v, %v, want an OpError", c, err)
				}
				for _, target := range []error{ErrNoPipe, ErrNobodyListens, ErrBusy, context.DeadlineExceeded, context.Canceled} {
					want := false
					for _, is := range test.is {
						want = want || is == target
					}
					if errors.Is(err, target) != want {
						t.Errorf("Dial: %v; is it %q: %v, want %v", err, target, !want, want)
					}
				}
			})
		})
	}
	t.Run("busy server is waited for", func(t *testing.T) {
		done := make(chan error, 1)
		go func() {
			c, err := d.Dial(context.Background(), "full")
			if err == nil {
				c.Close()
			}
			done <- err
		}()
		for range 2 {
			c := acceptFrom(t, full)
			defer c.Close() // not before the client has sent its preface
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestServerThatCheckServerRefusesGetsNothingOfTheClient(t *testing.T) {
	bothModes(t, func(t *testing.T, config ListenConfig) {
		l := listenAt(t, &config)
		leftover.ByThis(t, func() {
			not := errors.New("not the server that I know")
			var saw *token.Token
			d := &Dialer{CheckServer: func(server *token.Token) error { saw = server; return not }}
			if c, err := d.Dial(context.Background(), l.Addr().String()); !errors.Is(err, not) {
				t.Fatalf("Dial = %v, %v", c, err)
			}
			if saw == nil || int(saw.UID()) != os.Geteuid() || saw.Source().PID != os.Getpid() {
				t.Errorf("it saw %v", saw)
			}
			c := acceptFrom(t, l)
			defer c.Close()
			if n, err := c.Read(make([]byte, 8)); n != 0 || err == nil {
				t.Errorf("the server read %d bytes, %v", n, err)
			}
			if q := c.QoS(); q.Level != Anonymous {
				t.Errorf("it states %+v", q)
			}
			if who, err := c.Client(); !errors.Is(err, ErrLevel) {
				t.Errorf("the server is told who it is: %v, %v", who, err)
			}
			if err := c.RunAsClient(func(*Scope) error { return nil }); !errors.Is(err, ErrLevel) {
				t.Errorf("RunAsClient: %v, want ErrLevel", err)
			}
		})
	})
}

// TestAskingWhetherAServerLivesIsNoClient: a server sees those who want its name as little as it would if they had not come.
func TestAskingWhetherAServerLivesIsNoClient(t *testing.T) {
	bothModes(t, func(t *testing.T, config ListenConfig) {
		l := listenAt(t, &config)
		path := l.Addr().String()
		const asked, called = 100, 20
		last := fmt.Sprintf("@guise-test-last-%d", os.Getpid()) // the name of the last client
		accepted := make(chan int)
		go func() {
			for n := 0; ; n++ {
				c, err := l.AcceptPipe()
				if err != nil {
					t.Error(err)
				} else {
					c.Close()
				}
				if err != nil || c.RemoteAddr().String() == last {
					accepted <- n
					return
				}
			}
		}()
		var clients sync.WaitGroup
		clients.Go(func() {
			for range called {
				c, err := Dial(path, nil)
				if err != nil {
					if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) { // it was closed before it had said anything
						t.Errorf("a client: %v", err)
					}
					continue
				}
				c.Close()
			}
		})
		for range asked {
			if second, err := Listen(path, &config); !errors.Is(err, ErrPipeTaken) {
				t.Fatalf("Listen = %v, %v, want ErrPipeTaken", second, err)
			}
		}
		clients.Wait()
		// Who connected before this one is accepted before it.
		kind := unix.SOCK_STREAM
		if config.Message {
			kind = unix.SOCK_SEQPACKET
		}
		fd := rawSocket(unix.AF_UNIX, kind)
		defer unix.Close(fd)
		must(unix.Bind(fd, &unix.SockaddrUnix{Name: last}))
		must(unix.Connect(fd, &unix.SockaddrUnix{Name: path}))
		if n := <-accepted; n != called {
			t.Errorf("the server had %d clients, and there were %d", n, called)
		}
	})
}

// TestAddressIsThePathThatWasAskedFor: clients come by it, be it by a link, and know nothing of where that leads.
func TestAddressIsThePathThatWasAskedFor(t *testing.T) {
	bothModes(t, func(t *testing.T, config ListenConfig) {
		dir := testdir.Open(t, 0o755)
		deep := filepath.Join(dir, strings.Repeat("d", maxPath))
		must(os.Mkdir(deep, 0o755))
		must(os.Symlink(deep, filepath.Join(dir, "link")))
		path := filepath.Join(dir, "link", "spool")
		l, err := Listen(path, &config)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := Dial(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for what, address := range map[string]net.Addr{"the listener": l.Addr(), "a connection": acceptFrom(t, l).LocalAddr()} {
			want := "unix"
			if config.Message {
				want = "unixpacket"
			}
			if address.String() != path || address.Network() != want {
				t.Errorf("%s is at %s %q, want %s %q", what, address.Network(), address, want, path)
			}
		}
	})
}

func TestNameOfAKilledServerCanBeHadAtOnce(t *testing.T) {
	path := filepath.Join(testdir.Open(t, 0o755), "spool")
	for range 5 {
		p := startRaw(t, "to be killed", nil, []string{"GUISE_TEST_PATH=" + path})
		if said := p.out.line(); said != "listening" {
			t.Fatalf("the server says %q", said)
		}
		if l, err := Listen(path, nil); !errors.Is(err, ErrPipeTaken) {
			t.Fatalf("while it lives, Listen = %v, %v, want ErrPipeTaken", l, err)
		}
		must(p.cmd.Process.Kill())
		p.cmd.Wait()
		p.ended = true
		l, err := Listen(path, nil)
		if err != nil {
			t.Fatalf("after it was killed: %v", err)
		}
		l.Close()
	}
}

var _ = addRole("to be killed", func() {
	must1(Listen(os.Getenv("GUISE_TEST_PATH"), nil))
	fmt.Println("listening")
	select {}
})

func TestNameOfASocketThatWasHandedOverIsTaken(t *testing.T) {
	path := filepath.Join(testdir.Open(t, 0o755), "spool")
	// As systemd does: it listens, and nobody accepts before the service runs.
	fd := rawSocket(unix.AF_UNIX, unix.SOCK_STREAM)
	defer unix.Close(fd)
	must(unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	must(unix.Listen(fd, 1))
	for range 10 { // more than the queue has room for
		if l, err := Listen(path, nil); !errors.Is(err, ErrPipeTaken) {
			t.Fatalf("Listen = %v, %v, want ErrPipeTaken", l, err)
		}
	}
	must(unix.SetNonblock(fd, true))
	if client, _, err := unix.Accept(fd); err != unix.EAGAIN {
		t.Errorf("somebody has connected: accept gives %d, %v", client, err)
	}
}
