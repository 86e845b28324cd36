package crossing

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/machines"
	"github.com/guise-project/guise/internal/procevents"
	"github.com/guise-project/guise/smb"
	"github.com/guise-project/guise/token"
)

// role has the test binary be a server or many clients on a machine, as it says in JSON.
const role = "GUISE_TEST_CROSSING_ROLE"

type part struct {
	Listens bool // says whether it hears of its own changes from the kernel
	// Of a server: its pipe, what it is called on the network, and the socket for smbd.
	Path, Name, Socket string
	// Of clients: how many at once open a pipe, have each connection carry some requests, and that again and again until standard input
	// ends; or only once if Hold, and keep the connection until then. An account that they are, for their requests' names.
	Pipe     string
	Clients  int
	Requests int
	Hold     bool
	Account  string
	Timeout  time.Duration // for opening, and for each request
}

// playPart does not return if the process is to play a part.
func playPart() {
	said := os.Getenv(role)
	if said == "" {
		return
	}
	var p part
	err := json.Unmarshal([]byte(said), &p)
	switch {
	case err != nil:
	case p.Listens:
		if err := procevents.Available(); err != nil {
			fmt.Print(err)
		} else {
			fmt.Print(hears)
		}
	case p.Clients > 0:
		p.call()
	default:
		err = p.serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

const hears = "hears"

// serve makes a file of the name that a client asks for, as that client, until SIGTERM. It fails if it can't bring all clients to an
// end then. On standard output it says that it listens, and how many clients it has whenever that changes.
func (p part) serve() error {
	l, err := guise.Listen(p.Path, &guise.ListenConfig{Network: &guise.Network{Name: p.Name, Path: p.Socket}})
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		l.Close()
	}()
	fmt.Println("listening")
	var mu sync.Mutex
	var serving sync.WaitGroup
	open := map[*guise.Conn]bool{}
	change := func(f func()) {
		mu.Lock()
		defer mu.Unlock()
		f()
		fmt.Println(len(open))
	}
	for {
		c, err := l.AcceptPipe()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			return err
		}
		change(func() { open[c] = true })
		serving.Add(1)
		go func() {
			defer serving.Done()
			serveOne(c)
			c.Close()
			change(func() { delete(open, c) })
		}()
	}
	mu.Lock()
	for c := range open {
		c.SetDeadline(time.Unix(1, 0))
	}
	mu.Unlock()
	ended := make(chan struct{})
	go func() {
		serving.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(20 * time.Second):
		mu.Lock()
		defer mu.Unlock()
		return fmt.Errorf("the server still serves %d clients", len(open))
	}
}

func serveOne(c *guise.Conn) {
	for lines := bufio.NewReader(c); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		name := strings.TrimSpace(line)
		answer := "made " + name
		err = c.RunAsClient(func(*guise.Scope) error {
			f, err := os.OpenFile(filepath.Join(made, filepath.Base(name)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			return f.Close()
		})
		if err != nil {
			answer = "failed " + err.Error()
		}
		if _, err := io.WriteString(c, answer+"\n"); err != nil {
			return
		}
	}
}

// report is what became of one request.
type report struct {
	Request string
	Error   string `json:",omitempty"`
	Wrong   bool   `json:",omitempty"` // it was answered, with something else
	Took    time.Duration
}

// call calls a server and reports on standard output.
func (p part) call() {
	told := make(chan struct{}) // closed when standard input ends
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(told)
	}()
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	tell := func(r report) {
		mu.Lock()
		defer mu.Unlock()
		if err := out.Encode(r); err != nil {
			os.Exit(1)
		}
	}
	var all sync.WaitGroup
	for client := range p.Clients {
		all.Add(1)
		go func() {
			defer all.Done()
			for round := 0; ; round++ {
				name := fmt.Sprintf("%s-%d-%d-%d", p.Account, os.Getpid(), client, round)
				failed := p.connection(name, tell, told)
				if p.Hold {
					return
				}
				var pause time.Duration
				if failed {
					pause = 20 * time.Millisecond // or everybody only fails all the time
				}
				select {
				case <-told:
					return
				case <-time.After(pause):
				}
			}
		}()
	}
	all.Wait()
}

func (p part) connection(name string, tell func(report), told <-chan struct{}) (failed bool) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), p.Timeout)
	defer cancel()
	c, err := smb.Dial(ctx, p.Pipe, nil)
	if err != nil {
		tell(report{name, err.Error(), false, time.Since(begun)})
		return true
	}
	defer c.Close()
	lines := bufio.NewReader(c)
	for i := range p.Requests {
		r := report{Request: fmt.Sprintf("%s-%d", name, i)}
		c.SetDeadline(time.Now().Add(p.Timeout))
		_, err := io.WriteString(c, r.Request+"\n")
		var line string
		if err == nil {
			line, err = lines.ReadString('\n')
		}
		r.Took = time.Since(begun)
		if err != nil {
			r.Error = err.Error()
		} else if line != "made "+r.Request+"\n" {
			r.Error, r.Wrong = line, true
		}
		tell(r)
		if err != nil {
			return true
		}
		begun = time.Now()
	}
	if p.Hold {
		<-told
	}
	return false
}

// daemon is a server on a machine that can be stopped and started.
type daemon struct {
	service
	t       *testing.T
	cmd     *exec.Cmd
	heard   sync.WaitGroup // its standard output is read to the end
	clients atomic.Int64
}

// daemonIDs are nobody's who calls.
var daemonIDs = actor.IDs{UID: 61500, GID: 61500}

func newDaemon(t *testing.T, m *machines.Machine) *daemon {
	t.Helper()
	s, err := newService(m, "daemon", daemonIDs)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{service: s, t: t}
	d.start()
	t.Cleanup(func() {
		if d.cmd != nil {
			d.stop(syscall.SIGTERM)
		}
	})
	return d
}

// start returns once the server listens.
func (d *daemon) start() {
	d.t.Helper()
	cmd := takePart(d.t, d.machine, daemonIDs, part{Path: d.path(), Name: d.name, Socket: d.socket()}, token.CapSetuid, token.CapSetgid)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.cmd = cmd
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "listening" {
		d.t.Fatalf("the server said %q and not that it listens: %v", lines.Text(), cmd.Wait())
	}
	d.clients.Store(0)
	d.heard.Go(func() {
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				d.t.Errorf("the server said %q", lines.Text())
			}
			d.clients.Store(int64(n))
		}
	})
}

// stop has the server end. With SIGTERM it must have brought all that it was doing to an end.
func (d *daemon) stop(how syscall.Signal) {
	d.t.Helper()
	cmd := d.cmd
	d.cmd = nil
	if err := d.machine.Signal(cmd, how); err != nil {
		d.t.Error(err)
	}
	d.heard.Wait()
	if err := cmd.Wait(); err != nil && how == syscall.SIGTERM {
		d.t.Errorf("the server ended with %v", err)
	}
}

func takePart(t *testing.T, m *machines.Machine, ids actor.IDs, p part, capabilities ...uintptr) *exec.Cmd {
	t.Helper()
	// Not of t.Context, which ends before a test's cleanups, and they stop it.
	cmd, err := actor.CommandOn(context.WithoutCancel(t.Context()), m, ids, capabilities...)
	if err != nil {
		t.Fatal(err)
	}
	said, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, role+"="+string(said))
	return cmd
}

// crowd are clients of several accounts on several machines.
type crowd struct {
	t      *testing.T
	server *daemon
	part   part
	ends   []io.Closer // their standard inputs
	parts  []*exec.Cmd
	read   sync.WaitGroup

	mu       sync.Mutex
	answered map[string]int // by account
	failed   map[string]int
	errors   map[string]int
	requests map[string]bool // that were answered
	longest  time.Duration
	wrong    []string
}

// newCrowd has everybody of [People] log in, on machine 1 or 2, and call a server.
func newCrowd(t *testing.T, n *machines.Network, server *daemon, p part) *crowd {
	t.Helper()
	c := &crowd{
		t: t, server: server, part: p,
		answered: map[string]int{}, failed: map[string]int{}, errors: map[string]int{}, requests: map[string]bool{},
	}
	p.Pipe = server.remote()
	for i, who := range People {
		m := n.Machines[i%2]
		if err := m.Login(t.Context(), who.Account, 0); err != nil {
			t.Fatal(err)
		}
		p.Account = who.Account
		cmd := takePart(t, m, who.IDs, p)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c.ends, c.parts = append(c.ends, in), append(c.parts, cmd)
		c.read.Add(1)
		go func() {
			defer c.read.Done()
			for reports := json.NewDecoder(out); ; {
				var r report
				if reports.Decode(&r) != nil {
					return
				}
				c.hear(who.Account, r)
			}
		}()
	}
	t.Cleanup(c.leave)
	return c
}

func (c *crowd) hear(account string, r report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.longest = max(c.longest, r.Took)
	switch {
	case r.Wrong:
		c.wrong = append(c.wrong, r.Request+": "+r.Error)
	case r.Error != "":
		c.failed[account]++
		c.errors[r.Error]++
	default:
		c.answered[account]++
		c.requests[r.Request] = true
	}
}

// leave has all clients go, once.
func (c *crowd) leave() {
	c.t.Helper()
	for _, in := range c.ends {
		in.Close()
	}
	c.read.Wait()
	for _, cmd := range c.parts {
		if err := cmd.Wait(); err != nil {
			c.t.Errorf("clients ended with %v", err)
		}
	}
	c.ends, c.parts = nil, nil
}

// more waits until everybody has had n more requests answered, or fail.
func (c *crowd) more(n int, what map[string]int) {
	c.t.Helper()
	c.mu.Lock()
	before := map[string]int{}
	for _, who := range People {
		before[who.Account] = what[who.Account]
	}
	c.mu.Unlock()
	until(c.t, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, who := range People {
			if got := what[who.Account] - before[who.Account]; got < n {
				return fmt.Errorf("of %s's requests %d more came out like this, want %d; errors so far: %v", who.Account, got, n, c.errors)
			}
		}
		return nil
	})
}

// check has the clients go, and compares what they say with the files that were made.
func (c *crowd) check() {
	c.t.Helper()
	c.leave()
	if len(c.wrong) > 0 {
		c.t.Errorf("%d requests were answered otherwise than asked for, the first: %s", len(c.wrong), c.wrong[0])
	}
	if most := c.part.Timeout + 10*time.Second; c.longest > most {
		c.t.Errorf("a request took %v, and its timeout was %v", c.longest, c.part.Timeout)
	}
	until(c.t, func() error {
		if n := c.server.clients.Load(); n > 0 {
			return fmt.Errorf("all clients have gone, and the server has %d", n)
		}
		return nil
	})
	files := filesOf(c.t, c.server.machine)
	lost := 0
	for request := range c.requests {
		if !files[request] {
			lost++
		}
	}
	if lost > 0 {
		c.t.Errorf("of %d requests that were answered %d have made no file", len(c.requests), lost)
	}
	failures := 0
	for _, n := range c.failed {
		failures += n
	}
	c.t.Logf("%d requests were answered, %d failed, the longest took %v; %d files, each its client's", len(c.requests), failures, c.longest.Round(time.Millisecond), len(files))
	for text, n := range c.errors {
		c.t.Logf("%6d times: %s", n, text)
	}
}

// filesOf returns the files that were made on a machine, and fails the test if one is not its client's: that is the account at the beginning
// of its name, and whose it is the kernel says.
func filesOf(t *testing.T, m *machines.Machine) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir(m.Path(made))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, e := range entries {
		all[e.Name()] = true
		account, _, _ := strings.Cut(e.Name(), "-")
		owner, err := ownerOf(m.Path(made + "/" + e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := nameOf(owner); !strings.HasSuffix(got, "("+account+")") {
			t.Errorf("a request of %s's was carried out by %s", account, got)
		}
	}
	return all
}

// until waits for something that happens by itself.
func until(t *testing.T, what func() error) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := what()
		if err == nil {
			return
		}
		if time.Since(begun) > time.Minute {
			t.Fatal("this is still so: ", err)
		}
	}
}
