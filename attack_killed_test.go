package guise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/discard"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// killedAt is a step at which a client is killed.
type killedAt struct {
	name string
	// early: before there is a scope. Otherwise the client has opened the connection and written "1", and a scope is in progress.
	early bool
	do    func(c *rawClient)
	then  ids    // what the scope in progress is, or the next entry acts as
	lost  bool   // the connection is
	read  string // what the server still reads
}

// asItself calls f with the rights of the client itself, which is root and acts as alice.
func asItself(f func()) {
	must(syscall.Setresuid(-1, 0, -1))
	f()
}

func (c *rawClient) claimOf(who ids) *unix.Ucred {
	return &unix.Ucred{Pid: int32(os.Getpid()), Uid: who.uid, Gid: who.gid}
}

// tokenOf makes a token socket of others, and leaves the process root.
func (c *rawClient) tokenOf(who ids) (fd int) {
	must(syscall.Setresuid(-1, 0, -1))
	must(syscall.Setresgid(-1, int(who.gid), -1))
	must(syscall.Setresuid(-1, int(who.uid), -1))
	fd = c.token()
	must(syscall.Setresuid(-1, 0, -1))
	return fd
}

var aBob = ids{61002, 61002}

func killings() []killedAt {
	return []killedAt{
		{name: "after the hello", early: true, then: anAlice,
			do: func(c *rawClient) { c.say(rawHello(0, rawDynamic)) }},
		{name: "after a way and the hello", early: true, then: anAlice,
			do: func(c *rawClient) { asItself(c.way); c.say(rawHello(0, rawDynamic)) }},
		{name: "after the preface", early: true, then: anAlice,
			do: func(c *rawClient) { c.say(rawHello(0, rawDynamic)); c.preface("G", c.far) }},
		{name: "after a preface whose hello did not come", early: true, lost: true,
			do: func(c *rawClient) { c.preface("G", c.far) }},
		{name: "after a preface with a way and no hello", early: true, lost: true,
			do: func(c *rawClient) { asItself(c.way); c.preface("G", c.far) }},
		{name: "in a scope", then: anAlice, do: func(*rawClient) {}},
		{name: "after a way", then: anAlice, do: func(c *rawClient) { asItself(c.way) }},
		{name: "after a way and another", then: anAlice, do: func(c *rawClient) { asItself(c.way); c.way() }},
		{name: "after a context between writes", then: anAlice,
			do: func(c *rawClient) { must(c.sayAs(c.claimOf(aBob), rawNow(1, 0), c.tokenOf(aBob))) }},
		{name: "after many contexts between writes", then: anAlice,
			do: func(c *rawClient) {
				token := c.tokenOf(aBob)
				for i := range uint64(20) {
					must(c.sayAs(c.claimOf(aBob), rawNow(1+i, 0), token))
				}
			}},
		// Who passed it on has shown by its way that it might.
		{name: "after a way and what it passes on", then: aBob,
			do: func(c *rawClient) {
				token := c.tokenOf(aBob)
				c.way()
				must(c.sayAs(c.claimOf(aBob), rawNow(1, 0), token))
			}},
		{name: "after a context that goes with a write, before the write", then: aNobody, lost: true,
			do: func(c *rawClient) { must(c.announce(1, c.tokenOf(aBob), c.claimOf(aBob))) }},
		{name: "after a context that goes with a write, and the write", then: aNobody, lost: true,
			do: func(c *rawClient) { must(c.announce(1, c.tokenOf(aBob), c.claimOf(aBob))); c.write("2") }},
		{name: "after a write", then: anAlice, read: "2", do: func(c *rawClient) { c.write("2") }},
		{name: "after it said that its context is lost", then: aNobody, do: func(c *rawClient) { c.say(rawLost(1, 0)) }},
	}
}

var _ = func() struct{} {
	for _, k := range killings() {
		addRole("killed: "+k.name, func() {
			must(syscall.Setgroups([]int{61101}))
			must(syscall.Setresgid(-1, 61001, -1))
			must(syscall.Setresuid(-1, 61001, -1))
			c := newRawClient()
			if !k.early {
				c.open()
				c.await()
			}
			k.do(c)
			fmt.Println("at it")
			select {} // until it is killed
		})
	}
	return struct{}{}
}()

// kill kills the process and waits until it has gone.
func (p *rawProcess) kill() {
	p.t.Helper()
	if line := p.out.line(); line != "at it" {
		p.t.Errorf("the client says %q", line)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Error(err)
	}
	p.stdin.Close()
	p.cmd.Wait()
	p.ended = true
}

// TestAttackOfAClientThatIsKilledAtAnyStep has a client die by SIGKILL, and the server look afterwards at what it said last.
func TestAttackOfAClientThatIsKilledAtAnyStep(t *testing.T) {
	needRoot(t, "the client acts as others")
	for _, k := range killings() {
		t.Run(k.name, func(t *testing.T) {
			l := listenAt(t, nil)
			leftover.ByThis(t, func() {
				p := startRaw(t, "killed: "+k.name, asRoot(), []string{"GUISE_TEST_PATH=" + l.Addr().String()})
				server := acceptFrom(t, l)
				defer server.Close()
				if k.early {
					p.kill()
				} else {
					var b [1]byte
					if n, err := server.Read(b[:]); n != 1 || err != nil {
						t.Fatalf("the first read: %d bytes, %v", n, err)
					}
					in := entersScope(t, server)
					defer in.leave()
					in.is("at first", anAlice)
					server.server.mu.Lock() // the server must not look before the client has gone
					p.resume()
					p.kill()
					server.server.mu.Unlock()
					server.Client() // which takes in what was said
					in.becomes("after its client was killed", k.then, anAlice)
					in.leave()
				}
				got, err := io.ReadAll(struct{ io.Reader }{server})
				if string(got) != k.read || errors.Is(err, ErrContextLost) != k.lost || !k.lost && err != nil {
					t.Errorf("the server reads on %q, %v; want %q", got, err, k.read)
				}
				then := aNobody
				err = server.RunAsClient(func(*Scope) error { then = ownIDs(); return nil })
				if lost := k.then == aNobody || k.lost; lost != errors.Is(err, ErrContextLost) || !lost && err != nil {
					t.Errorf("the next entry: %v", err)
				} else if !lost && then != k.then {
					t.Errorf("the next scope is %v's, want %v's", then, k.then)
				}
				server.Close()
				discard.Wait()
			})
		})
	}
}

// The hop in the middle is a server that acts for who connects and calls another, and is killed in the middle.
var _ = addRole("killed hop", func() {
	l := must1(Listen(filepath.Join(os.Getenv("GUISE_TEST_DIR"), "pipe"), nil))
	fmt.Println("listens")
	server := must1(l.AcceptPipe())
	must1(server.Read(make([]byte, 1)))
	must(server.RunAsClient(func(*Scope) error {
		hop := must1(Dial(os.Getenv("GUISE_TEST_PATH"), &QoS{Tracking: Dynamic}))
		must1(hop.Write([]byte("1")))
		select {}
	}))
})

// TestAttackWhereTheHopInTheMiddleIsKilled has the client change before and after.
func TestAttackWhereTheHopInTheMiddleIsKilled(t *testing.T) {
	needRoot(t, "the hop acts as others")
	for _, changes := range []bool{false, true} {
		t.Run(fmt.Sprintf("as its client changes: %v", changes), func(t *testing.T) {
			dir := testdir.Open(t, 0o755)
			back := listenAt(t, nil)
			leftover.ByThis(t, func() {
				p := startRaw(t, "killed hop", asRoot(), []string{"GUISE_TEST_DIR=" + dir, "GUISE_TEST_PATH=" + back.Addr().String()})
				if line := p.out.line(); line != "listens" {
					t.Fatalf("the hop says %q", line)
				}
				a := &rawClient{}
				asAlice(func() {
					a.pipe = rawConnect(filepath.Join(dir, "pipe"))
					a.near, a.far = rawPair(unix.SOCK_SEQPACKET)
					a.open()
				})
				defer a.close()
				server := acceptFrom(t, back)
				defer server.Close()
				if n, err := server.Read(make([]byte, 1)); n != 1 || err != nil {
					t.Fatalf("the first read: %d bytes, %v", n, err)
				}
				in := entersScope(t, server)
				defer in.leave()
				in.is("at first", anAlice)
				var announcing chan struct{}
				if changes {
					announcing = make(chan struct{})
					go func() { // until the hop has gone
						defer close(announcing)
						sockets := map[ids]int{}
						for _, who := range []ids{aBob, anAlice} {
							done := make(chan struct{})
							go func() {
								defer close(done)
								must(RunAs(must1(token.FromIDs(who.uid, who.gid, nil)), func(*Scope) error { sockets[who] = a.token(); return nil }))
							}()
							<-done
						}
						for sequence := uint64(1); ; sequence++ {
							who := []ids{aBob, anAlice}[sequence%2]
							err := a.sayAs(a.claimOf(who), rawNow(sequence, 0), sockets[who])
							if err == unix.EPIPE || err == unix.ECONNRESET {
								return
							}
							must(err)
						}
					}()
					in.becomes("as its client's client changes", aBob, anAlice)
				}
				p.cmd.Process.Kill()
				p.cmd.Wait()
				p.ended = true
				if changes {
					<-announcing
				}
				server.Client() // what it has said last
				stood := in.now()
				if stood != anAlice && (!changes || stood != aBob) {
					t.Errorf("after the hop was killed the scope is %v's", stood)
				}
				if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("reading on: %d bytes, %v", n, err)
				}
				in.is("after the end was read", stood)
				if err := server.RunAsClient(func(*Scope) error {
					if now := ownIDs(); now != stood {
						t.Errorf("the next scope is %v's, the one in progress %v's", now, stood)
					}
					return nil
				}); err != nil {
					t.Errorf("the next entry: %v", err)
				}
				in.leave()
				server.Close()
				a.close()
				discard.Wait()
			})
		})
	}
}
