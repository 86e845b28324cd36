package guise_test

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"

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
	if _, network := local.Restrict(token.Statement{Capabilities: token.AllCapabilities}).Origin(); network {
		t.Error("a statement that says nothing of the network makes a context come from there")
	}
}
