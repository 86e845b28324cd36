package guise_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

var testOrigin = token.Origin{
	Client: netip.MustParseAddrPort("192.0.2.7:51300"), Account: "alice", Domain: "TEST",
	SIDs: []string{"S-1-5-21-1-2-3-1000", "S-1-5-11"}, Encrypted: true,
}

func remoteToken(t testing.TB, uid uint32) *token.Token {
	t.Helper()
	r, err := token.OverNetwork(uid, uid, nil, testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// comesFrom checks where a server's client is from: want nil is this machine.
func comesFrom(t testing.TB, when string, c *guise.Conn, want *token.Origin) {
	t.Helper()
	who, err := c.Client()
	if err != nil {
		t.Errorf("%s: %v", when, err)
		return
	}
	origin, network := who.Origin()
	if network != (want != nil) || want != nil && !reflect.DeepEqual(origin, *want) {
		t.Errorf("%s the client is from %+v (over the network: %v), want %+v", when, origin, network, want)
	}
}

// TestOriginTravelsWithTheChain has B and C be in this process: B acts for a client of another machine and calls C, which calls D.
func TestOriginTravelsWithTheChain(t *testing.T) {
	needRoot(t)
	remote := remoteToken(t, 61001)
	for _, tracking := range []guise.Tracking{guise.Static, guise.Dynamic} {
		t.Run(tracking.String(), func(t *testing.T) {
			qos := &guise.QoS{Tracking: tracking}
			lc, ld := listenOn(t, nil), listenOn(t, nil)
			var c, d *guise.Conn
			err := guise.RunAs(remote, func(*guise.Scope) error {
				near, err := guise.Dial(lc.Addr().String(), qos)
				if err != nil {
					return err
				}
				t.Cleanup(func() { near.Close() })
				writes(t, near)
				c = accept(t, lc)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			comesFrom(t, "at C", c, &testOrigin)
			who, _ := c.Client()
			if via := who.Via(); len(via) != 1 || via[0].PID != os.Getpid() {
				t.Errorf("at C the context came by way of %+v, want B alone", via)
			}
			inside(t, c, func(*guise.Scope) {
				near, err := guise.Dial(ld.Addr().String(), qos)
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { near.Close() })
				writes(t, near)
				d = accept(t, ld)
			})
			comesFrom(t, "at D", d, &testOrigin)
			if who, _ := d.Client(); len(who.Via()) != 2 || who.UID() != 61001 {
				t.Errorf("at D the client is %v by way of %+v, want B and C", who, who.Via())
			}
		})
	}
}

// TestOriginIsOfWhatWasWritten: a dynamic client writes for somebody of another machine, for itself, and for somebody of this one.
func TestOriginIsOfWhatWasWritten(t *testing.T) {
	needRoot(t)
	remote, here := remoteToken(t, 61001), identity(t, 61001, 61001)
	l := listenOn(t, nil)
	near, err := guise.Dial(l.Addr().String(), &guise.QoS{Tracking: guise.Dynamic})
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	writes(t, near)
	server := accept(t, l)
	comesFrom(t, "as itself", server, nil)
	for _, step := range []struct {
		when string
		as   *token.Token
		want *token.Origin
	}{
		{"for another machine", remote, &testOrigin},
		{"for the same account of this machine", here, nil},
		{"for another machine again", remote, &testOrigin},
	} {
		if err := guise.RunAs(step.as, func(*guise.Scope) error { writes(t, near); return nil }); err != nil {
			t.Fatal(err)
		}
		reads(t, server)
		comesFrom(t, step.when, server, step.want)
	}
	writes(t, near)
	reads(t, server)
	comesFrom(t, "as itself again", server, nil)
}

// TestOriginOfAnUnprivilegedHopIsOnlyThatThereIsOne: who it was on the other machine takes the right to speak for others.
func TestOriginOfAnUnprivilegedHopIsOnlyThatThereIsOne(t *testing.T) {
	needRoot(t)
	for _, tracking := range []guise.Tracking{guise.Static, guise.Dynamic} {
		t.Run(tracking.String(), func(t *testing.T) {
			l := listenOn(t, nil)
			p := startRole(t, "unprivileged hop", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61001, Gid: 61001}},
				"GUISE_TEST_PATH="+l.Addr().String(), "GUISE_TEST_TRACKING="+tracking.String())
			if said := p.tell("opened before its scope"); said != "ok" {
				t.Fatal(said)
			}
			before := accept(t, l)
			comesFrom(t, "before its scope", before, nil)
			if said := p.tell("writes in it"); said != "ok" {
				t.Fatal(said)
			}
			reads(t, before)
			if tracking == guise.Dynamic {
				comesFrom(t, "written in its scope", before, &token.Origin{})
			} else {
				comesFrom(t, "written in its scope", before, nil) // as at the open
			}
			if said := p.tell("opens in it"); said != "ok" {
				t.Fatal(said)
			}
			opened := accept(t, l)
			comesFrom(t, "opened in its scope", opened, &token.Origin{})
			if who, err := opened.Client(); err != nil || who.UID() != 61001 || len(who.Via()) != 0 {
				t.Errorf("opened in its scope the client is %v by way of %v, %v; it speaks for itself", who, who.Via(), err)
			}
			p.end()
		})
	}
}

var _ = addRole("unprivileged hop", func() {
	path, qos := os.Getenv("GUISE_TEST_PATH"), &guise.QoS{Tracking: guise.Static}
	if os.Getenv("GUISE_TEST_TRACKING") == "dynamic" {
		qos.Tracking = guise.Dynamic
	}
	remote := must1(token.OverNetwork(61001, 61001, nil, testOrigin))
	orders := bufio.NewScanner(os.Stdin)
	next := func() { orders.Scan() }
	next()
	near := must1(guise.Dial(path, qos))
	must1(near.Write([]byte("x")))
	fmt.Println("ok")
	must(guise.RunAs(remote, func(*guise.Scope) error {
		next()
		must1(near.Write([]byte("x")))
		fmt.Println("ok")
		next()
		inside := must1(guise.Dial(path, qos))
		must1(inside.Write([]byte("x")))
		fmt.Println("ok")
		next() // the end
		return nil
	}))
})

// TestOriginThatIsTooLongToTellIsStillOne: an account with many groups, or a name of any length, does not get around it.
func TestOriginThatIsTooLongToTellIsStillOne(t *testing.T) {
	needRoot(t)
	many := testOrigin
	many.SIDs = slices.Repeat([]string{"S-1-5-21-1111111111-2222222222-3333333333-44444"}, 1500)
	long := testOrigin
	long.Account, long.Domain = strings.Repeat("a", 300), strings.Repeat("d", 300)
	for name, origin := range map[string]token.Origin{"1,500 SIDs": many, "names of 300 bytes": long} {
		t.Run(name, func(t *testing.T) {
			remote, err := token.OverNetwork(61001, 61001, nil, origin)
			if err != nil {
				t.Fatal(err)
			}
			l := listenOn(t, nil)
			err = guise.RunAs(remote, func(*guise.Scope) error {
				near, err := guise.Dial(l.Addr().String(), nil)
				if err == nil {
					t.Cleanup(func() { near.Close() })
					writes(t, near)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			c := accept(t, l)
			want := testOrigin
			if len(origin.SIDs) > 100 {
				want.SIDs = nil
			} else {
				want.Account, want.Domain = "", ""
			}
			comesFrom(t, "the next server", c, &want)
		})
	}
}

// TestSelfInAScopeIsWhatTheScopeWears, with all that its owner has said: it must be no way around that.
func TestSelfInAScopeIsWhatTheScopeWears(t *testing.T) {
	needRoot(t)
	remote := remoteToken(t, 61001).Restrict(token.Statement{EffectiveOnly: true, Capabilities: token.AllCapabilities})
	err := guise.RunAs(remote, func(*guise.Scope) error {
		self, err := token.Self()
		if err != nil {
			return err
		}
		origin, network := self.Origin()
		if !network || !reflect.DeepEqual(origin, testOrigin) || !self.EffectiveOnly() || self.AtMost(guise.Delegation) != guise.Impersonation {
			t.Errorf("Self is %v, from %+v, effective-only %v, and allows %v", self, origin, self.EffectiveOnly(), self.AtMost(guise.Delegation))
		}
		return guise.RunAs(self, func(*guise.Scope) error {
			if wearing, err := guise.Wearing(); err != nil || !wearing.EffectiveOnly() {
				t.Errorf("in a scope of it the thread wears %v, %v", wearing, err)
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
	if self, err := token.Self(); err != nil || self.AtMost(guise.Delegation) != guise.Delegation {
		t.Errorf("outside of scopes Self is %v, %v", self, err)
	}
}

// TestRootOfAnotherMachineIsNotWornByWayOfOneWhoDoes: each listener opts in for itself.
func TestRootOfAnotherMachineIsNotWornByWayOfOneWhoDoes(t *testing.T) {
	needRoot(t)
	remote := remoteToken(t, 0).AllowForeignRoot()
	for _, tracking := range []guise.Tracking{guise.Static, guise.Dynamic} {
		for _, allowed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, allowed: %v", tracking, allowed), func(t *testing.T) {
				l := listenOn(t, &guise.ListenConfig{AllowForeignRoot: allowed})
				near, err := guise.Dial(l.Addr().String(), &guise.QoS{Tracking: tracking})
				if err != nil {
					t.Fatal(err)
				}
				defer near.Close()
				writes(t, near)
				c := accept(t, l)
				var opened *guise.Conn
				err = guise.RunAs(remote, func(*guise.Scope) error {
					writes(t, near)
					inside, err := guise.Dial(l.Addr().String(), &guise.QoS{Tracking: tracking})
					if err == nil {
						t.Cleanup(func() { inside.Close() })
						writes(t, inside)
						opened = accept(t, l)
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				reads(t, c)
				servers := map[string]*guise.Conn{"opened in the scope": opened}
				if tracking == guise.Dynamic {
					servers["written in the scope"] = c
				}
				for name, server := range servers {
					err := server.RunAsClient(func(*guise.Scope) error { return nil })
					if allowed != (err == nil) || !allowed && !errors.Is(err, guise.ErrNotWearable) {
						t.Errorf("%s: RunAsClient: %v", name, err)
					}
				}
			})
		}
	}
}

// TestPeerIsNoWayAroundWhatTheClientAllows.
func TestPeerIsNoWayAroundWhatTheClientAllows(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		qos  guise.QoS
		want error
	}{
		{guise.QoS{Level: guise.Anonymous}, guise.ErrLevel},
		{guise.QoS{Level: guise.Identification}, guise.ErrLevel},
		{guise.QoS{}, nil},
	} {
		l := listenOn(t, nil)
		var near *guise.Conn
		err := guise.RunAs(remoteToken(t, 61001), func(*guise.Scope) (err error) {
			near, err = guise.Dial(l.Addr().String(), &test.qos)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		c := acceptUnread(t, l)
		p, err := c.Peer()
		if err != nil || p.UID() != 61001 {
			t.Fatalf("Peer = %v, %v", p, err)
		}
		if _, network := p.Origin(); !network {
			t.Error("the peer's origin is lost")
		}
		if err := guise.RunAs(p, func(*guise.Scope) error { return nil }); !errors.Is(err, test.want) {
			t.Errorf("at level %v RunAs of the peer: %v, want %v", test.qos.Level, err, test.want)
		}
	}
	l := listenOn(t, nil)
	silent, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p, err := acceptUnread(t, l).Peer()
	if err != nil {
		t.Fatal(err)
	}
	if err := guise.RunAs(p, func(*guise.Scope) error { return nil }); !errors.Is(err, guise.ErrLevel) {
		t.Errorf("of a client that has said nothing RunAs of the peer: %v, want ErrLevel", err)
	}
}

// TestDialThatFailsAllowsNothing: with each number of descriptors that are left, a client states level Anonymous, and no server gets more.
func TestDialThatFailsAllowsNothing(t *testing.T) {
	needRoot(t)
	l := listenOn(t, nil)
	p := startRole(t, "few descriptors", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61001, Gid: 61001}}, "GUISE_TEST_PATH="+l.Addr().String())
	failed, dialled := 0, 0
	for n := range 8 {
		connected := p.tell(strconv.Itoa(n))
		if connected != "dialled" {
			failed++
		} else {
			dialled++
		}
		// Whoever came before this one has to have gone.
		mark, err := guise.Dial(l.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for {
			c := acceptUnread(t, l)
			if peer, err := c.Peer(); err == nil && peer.UID() == 0 {
				break
			}
			_ = c.WaitClient(t.Context())
			if who, err := c.Client(); err == nil {
				t.Errorf("with %d descriptors left (%s) the server is told that it is %v", n, connected, who)
			}
			if err := c.RunAsClient(func(*guise.Scope) error { return nil }); err == nil {
				t.Errorf("with %d descriptors left (%s) the server acts as the client", n, connected)
			}
		}
		mark.Close()
	}
	if failed == 0 || dialled == 0 {
		t.Errorf("%d calls failed and %d did not; both should have happened", failed, dialled)
	}
}

var _ = addRole("few descriptors", func() {
	path := os.Getenv("GUISE_TEST_PATH")
	must1(guise.Dial(path, &guise.QoS{Level: guise.Anonymous})).Close() // whatever is only made once
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		n := must1(strconv.Atoi(orders.Text()))
		var before unix.Rlimit
		must(unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
		// The limit is on the number of a new descriptor, so what is below has to be taken.
		var taken []int
		highest := must1(unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0))
		for highest < 40 {
			taken = append(taken, highest)
			highest = must1(unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0))
		}
		taken = append(taken, highest)
		must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(highest + 1 + n), Max: before.Max}))
		c, err := guise.Dial(path, &guise.QoS{Level: guise.Anonymous})
		must(unix.Setrlimit(unix.RLIMIT_NOFILE, &before))
		for _, fd := range taken {
			unix.Close(fd)
		}
		if err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println("dialled")
		c.Close()
	}
})

func TestTokenOverTheNetwork(t *testing.T) {
	remote := remoteToken(t, 61001)
	if got := remote.String(); !strings.Contains(got, `TEST\alice on 192.0.2.7`) {
		t.Errorf("it prints as %q, which does not say where it is from", got)
	}
	if remote.Level() != guise.Impersonation || remote.AtMost(guise.Delegation) != guise.Impersonation {
		t.Errorf("its level is %v, and at most %v can be had of it", remote.Level(), remote.AtMost(guise.Delegation))
	}
	local, err := token.FromIDs(61001, 61001, nil)
	if err != nil {
		t.Fatal(err)
	}
	if remote.Equal(local) || !remote.SameIDs(local) || !remote.Equal(remoteToken(t, 61001)) {
		t.Error("a context of another machine is to have the same ids as one of this, and to be another")
	}
	origin, _ := remote.Origin()
	origin.SIDs[0] = "S-1-1-0"
	if again, _ := remote.Origin(); again.SIDs[0] != testOrigin.SIDs[0] {
		t.Error("who asks for the origin can change the token")
	}
	root := remoteToken(t, 0)
	if err := root.Wearable(); err == nil || !strings.Contains(err.Error(), "another machine") {
		t.Errorf("another machine's root: Wearable = %v", err)
	}
	if err := root.AllowForeignRoot().Wearable(); err != nil {
		t.Errorf("another machine's root where the listener allows it: %v", err)
	}
	if again, _ := remote.Through([]token.Hop{{PID: 1}}, nil).Origin(); !reflect.DeepEqual(again, testOrigin) {
		t.Errorf("a way without an origin leaves %+v of it", again)
	}
	if _, network := local.Restrict(token.Statement{Capabilities: token.AllCapabilities}).Origin(); network {
		t.Error("a statement that says nothing of the network makes a context come from there")
	}
}
