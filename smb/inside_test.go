package smb

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/token"
)

func pipe(name string) string { return `\\` + os.Getenv("SERVER") + `\pipe\` + name }

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func aliceByPassword() *Dialer {
	return &Dialer{Password: &Password{User: "alice", Secret: "of-alice"}}
}

func mustDial(t *testing.T, d *Dialer, name string) *guise.Conn {
	t.Helper()
	c, err := d.Dial(within(t, 20*time.Second), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func tokenOf(t *testing.T, name string) *token.Token {
	t.Helper()
	tok, err := token.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// who returns whom the server sees.
func who(d *Dialer, t *testing.T) (string, error) {
	c, err := d.Dial(within(t, 20*time.Second), pipe("who"))
	if err != nil {
		return "", err
	}
	defer c.Close()
	answer, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(answer), err
}

func TestInsideKerberos(t *testing.T) {
	needInside(t)
	order(t, "login alice 1h")
	order(t, "login bob 1h")
	for _, d := range []*Dialer{{}, {RequireEncryption: true}} {
		for _, name := range []string{"alice", "bob"} {
			err := guise.RunAs(tokenOf(t, name), func(*guise.Scope) error {
				got, err := who(d, t)
				if got != name {
					t.Errorf("in a scope of %s the server sees %q, %v", name, got, err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
	// The process is root, and has no ticket. Nobody else's is taken for it.
	if got, err := who(&Dialer{}, t); !errors.Is(err, ErrNoTicket) {
		t.Errorf("root without a ticket: %q, %v", got, err)
	} else {
		t.Log(err)
	}
}

func TestInsidePassword(t *testing.T) {
	needInside(t)
	if got, err := who(aliceByPassword(), t); got != "alice" {
		t.Errorf("by password the server sees %q, %v", got, err)
	}
	d := aliceByPassword()
	d.RequireEncryption = true
	if got, err := who(d, t); got != "alice" {
		t.Errorf("encrypted, the server sees %q, %v", got, err)
	}
	d = aliceByPassword()
	d.Address, d.Password.Domain = net.JoinHostPort(os.Getenv("SERVER_ADDRESS"), "445"), "GUISE"
	if got, err := who(d, t); got != "alice" {
		t.Errorf("by address the server sees %q, %v", got, err)
	}
	for _, wrong := range []Password{{User: "alice", Secret: "guessed"}, {User: "nosuch", Secret: "guessed"}, {User: "alice"}, {Secret: "of-alice"}} {
		_, err := who(&Dialer{Password: &wrong}, t)
		if !errors.Is(err, ErrLogon) || strings.Contains(fmt.Sprint(err), "guessed") {
			t.Errorf("%v: %v", wrong, err)
		}
		t.Log(err)
	}
}

func TestInsideEcho(t *testing.T) {
	needInside(t)
	c := mustDial(t, aliceByPassword(), pipe("ECHO"))
	if got, want := c.QoS(), (guise.QoS{Level: guise.Impersonation, Tracking: guise.Static}); got != want {
		t.Errorf("QoS is %v, want %v", got, want)
	}
	if remote := c.RemoteAddr().String(); remote != os.Getenv("SERVER_ADDRESS")+":445" {
		t.Errorf("the remote address is %s", remote)
	}
	for _, size := range []int{1, 1000, 65535, 65536, 65537, 3 << 20} {
		data := make([]byte, size)
		rand.Read(data)
		go c.Write(data)
		got := make([]byte, size)
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes: not what was sent, or %v", size, err)
		}
	}
}

func TestInsideMessages(t *testing.T) {
	needInside(t)
	d := aliceByPassword()
	d.Message = true
	c := mustDial(t, d, pipe("messages"))
	var sizes = []int{1, 2, 100, 4096, 65534, 65535}
	for range 2 {
		for _, size := range sizes {
			data := make([]byte, size)
			rand.Read(data)
			if _, err := c.Write(data); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 1<<17)
			n, err := c.Read(got)
			if err != nil || !bytes.Equal(got[:n], data) {
				t.Fatalf("a message of %d bytes: got %d, %v", size, n, err)
			}
		}
	}
	// Several in a row stay several.
	for i := range 50 {
		if _, err := fmt.Fprintf(c, "message %d", i); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		got := make([]byte, 100)
		n, err := c.Read(got)
		if want := fmt.Sprintf("message %d", i); err != nil || string(got[:n]) != want {
			t.Fatalf("got %q, %v; want %q", got[:n], err, want)
		}
	}
	for _, size := range []int{0, 65536} {
		if _, err := c.Write(make([]byte, size)); err == nil {
			t.Errorf("a message of %d bytes was taken", size)
		}
	}
}

func TestInsideQualityOfService(t *testing.T) {
	needInside(t)
	d := aliceByPassword()
	d.QoS = &guise.QoS{Tracking: guise.Dynamic}
	c := mustDial(t, d, pipe("echo"))
	if got, want := c.QoS(), (guise.QoS{Level: guise.Impersonation, Tracking: guise.Static}); got != want {
		t.Errorf("QoS is %v, want %v", got, want)
	}
}

func TestInsideWritesWhileReading(t *testing.T) {
	needInside(t)
	c := mustDial(t, aliceByPassword(), pipe("backward"))
	answer := make(chan string, 1)
	go func() {
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		answer <- fmt.Sprint(string(buf[:n]), err)
	}()
	c.SetWriteDeadline(time.Now().Add(10 * time.Second))
	for _, line := range []string{"one\n", "two\n", "three\n"} {
		if _, err := io.WriteString(c, line); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-answer; got != "one,two,three\n<nil>" {
		t.Errorf("the answer is %q", got)
	}
}

func TestInsideReadDeadlineLosesNothing(t *testing.T) {
	needInside(t)
	c := mustDial(t, aliceByPassword(), pipe("echo"))
	for i := range 20 {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("nothing to read: %v", err)
		}
		c.SetReadDeadline(time.Time{})
		fmt.Fprintf(c, "%04d", i)
		got := make([]byte, 4)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != fmt.Sprintf("%04d", i) {
			t.Fatalf("round %d: %q, %v", i, got, err)
		}
	}
}

func TestInsideServerEnds(t *testing.T) {
	needInside(t)
	c := mustDial(t, aliceByPassword(), pipe("bye"))
	fmt.Fprint(c, "me")
	if got, err := io.ReadAll(c); string(got) != "bye, me" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("reading again: %v", err)
	}
	if _, err := fmt.Fprint(c, "more"); err == nil {
		t.Error("writing to a pipe that has ended succeeds")
	}
}

func TestInsideCloseDelivers(t *testing.T) {
	needInside(t)
	for _, name := range []string{"total", "both"} {
		for _, size := range []int{1, 150000, 2 << 20} {
			leftover.ByThis(t, func() { closeDelivers(t, name, size) })
		}
	}
	// More than smbd and the daemon's socket take, and no more than the connection's own does.
	closeDelivers(t, "late", 300000)
}

func closeDelivers(t *testing.T, name string, size int) {
	result := filepath.Join(os.Getenv("SERVER_DIR"), "total")
	os.Remove(result)
	data := make([]byte, size)
	rand.Read(data)
	c, err := aliceByPassword().Dial(within(t, 20*time.Second), pipe(name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(data); err != nil {
		t.Error(err)
	}
	begun := time.Now()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("closing took %v", took)
	}
	want := fmt.Sprintf("%d %x", size, sha256.Sum256(data))
	until(t, func() error {
		got, err := os.ReadFile(result)
		if string(got) != want {
			return fmt.Errorf("the server on %s has %q, %v; want %q", name, got, err, want)
		}
		return nil
	})
	untilNoPumps(t)
}

func TestInsideClosesWhoeverBlocks(t *testing.T) {
	needInside(t)
	for _, name := range []string{"blocked", "flood"} {
		c, err := aliceByPassword().Dial(within(t, 20*time.Second), pipe(name))
		if err != nil {
			t.Fatal(err)
		}
		c.SetWriteDeadline(time.Now().Add(time.Second))
		for err == nil { // until it is full
			_, err = c.Write(make([]byte, 1<<16))
		}
		begun := time.Now()
		c.Close()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%s: closing took %v", name, took)
		}
		untilNoPumps(t)
		took := time.Since(begun)
		if took > delivery+leaving+2*time.Second {
			t.Errorf("%s: the connection was there for %v after it was closed", name, took)
		}
		t.Logf("%s: gone after %v", name, took)
	}
}

func TestInsideCloseWriteSendsNothing(t *testing.T) {
	needInside(t)
	c := mustDial(t, aliceByPassword(), pipe("echo"))
	fmt.Fprint(c, "before")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "before" {
		t.Errorf("%q, %v", got, err)
	}
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := c.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after CloseWrite the connection ended: %v", err)
	}
	c.Close()
	untilNoPumps(t)
}

func TestInsidePipesThatAreNot(t *testing.T) {
	needInside(t)
	for name, want := range map[string]error{"nosuch": guise.ErrNoPipe, "stale": guise.ErrNobodyListens, "refuse": ErrAccess, "refuse2": ErrAccess} {
		_, err := aliceByPassword().Dial(within(t, 20*time.Second), pipe(name))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		var op *guise.OpError
		if !errors.As(err, &op) || op.Op != "dial" || op.Pipe != pipe(name) {
			t.Errorf("%s: %#v", name, err)
		}
		t.Log(err)
	}
	untilNoPumps(t)
}

func TestInsideSambaKilled(t *testing.T) {
	needInside(t)
	c := mustDial(t, aliceByPassword(), pipe("echo"))
	fmt.Fprint(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	order(t, "samba stop")
	defer order(t, "samba start")
	_, err := c.Read(make([]byte, 1))
	if !errors.Is(err, ErrCut) || errors.Is(err, io.EOF) {
		t.Errorf("reading after smbd was killed: %v", err)
	}
	t.Log(err)
	if _, err := c.Write([]byte("x")); !errors.Is(err, ErrCut) {
		t.Errorf("writing after smbd was killed: %v", err)
	}
	untilNoPumps(t)
	if _, err := aliceByPassword().Dial(within(t, 20*time.Second), pipe("echo")); !errors.Is(err, ErrUnreachable) {
		t.Errorf("dialling without smbd: %v", err)
	} else {
		t.Log(err)
	}
}

func TestInsideCutCable(t *testing.T) {
	needInside(t)
	c := mustDial(t, aliceByPassword(), pipe("echo"))
	idle := mustDial(t, aliceByPassword(), pipe("echo"))
	order(t, "link down")
	defer order(t, "link up")
	begun := time.Now()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	for name, conn := range map[string]*guise.Conn{"written to": c, "idle": idle} {
		conn.SetReadDeadline(begun.Add(40 * time.Second))
		_, err := conn.Read(make([]byte, 1))
		if !errors.Is(err, ErrCut) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("%s: noticed after %v", name, took)
		} else {
			t.Logf("%s: noticed after %v: %v", name, took, err)
		}
	}
	ctx := within(t, time.Second)
	_, err := aliceByPassword().Dial(ctx, pipe("echo"))
	var timeout net.Error
	if !errors.Is(err, ErrUnreachable) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("dialling: %v", err)
	}
	t.Log(err)
	untilNoPumps(t)
}

func TestInsideUnreachable(t *testing.T) {
	needInside(t)
	d := aliceByPassword()
	_, err := d.Dial(within(t, 20*time.Second), `\\nosuch.guise.test\pipe\echo`)
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("no such host: %v", err)
	}
	t.Log(err)
	_, err = d.Dial(within(t, 20*time.Second), `\\198.51.100.1\pipe\echo`)
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("no route: %v", err)
	}
	t.Log(err)
}

func TestInsideContextDoesNotOutliveDial(t *testing.T) {
	needInside(t)
	ctx, cancel := context.WithCancel(t.Context())
	c, err := aliceByPassword().Dial(ctx, pipe("echo"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	for range 3 {
		fmt.Fprint(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInsideKerberosErrors(t *testing.T) {
	needInside(t)
	asAlice := func(d *Dialer, name string) (err error) {
		scope := guise.RunAs(tokenOf(t, "alice"), func(*guise.Scope) error {
			var c *guise.Conn
			if c, err = d.Dial(within(t, 30*time.Second), name); err == nil {
				c.Close()
			}
			return nil
		})
		if scope != nil {
			t.Fatal(scope)
		}
		return err
	}
	expect := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", what, err, want)
		}
		t.Logf("%s: %v", what, err)
	}
	order(t, "logout alice")
	expect("logged out", asAlice(&Dialer{}, pipe("echo")), ErrNoTicket)

	order(t, "login alice 2s")
	cache := "/tmp/krb5cc_61001"
	until(t, func() error {
		data, err := os.ReadFile(cache)
		if err != nil {
			return err
		}
		c, err := parseCache(data)
		if err != nil {
			return err
		}
		if tgt, ok := c.find([]string{"krbtgt", "GUISE.TEST"}, "", time.Now()); !ok || !tgt.expired(time.Now()) {
			return fmt.Errorf("%v is not expired", tgt.end)
		}
		return nil
	})
	expect("expired", asAlice(&Dialer{}, pipe("echo")), ErrTicketExpired)

	order(t, "login alice 1h")
	expect("unknown principal", asAlice(&Dialer{Principal: "cifs/nosuch.guise.test"}, pipe("echo")), ErrPrincipal)
	err := asAlice(&Dialer{}, `\\`+os.Getenv("SERVER_ADDRESS")+`\pipe\echo`)
	expect("an address", err, ErrPrincipal)
	if !strings.Contains(fmt.Sprint(err), "is an address") {
		t.Errorf("an address: %v", err)
	}
	expect("an address with a principal", asAlice(&Dialer{Principal: "cifs/" + os.Getenv("SERVER")}, `\\`+os.Getenv("SERVER_ADDRESS")+`\pipe\echo`), nil)
	expect("another machine's principal", asAlice(&Dialer{Principal: "cifs/machine1.guise.test"}, pipe("echo")), ErrPrincipal)

	for _, skew := range []time.Duration{-2 * time.Hour, 2 * time.Hour} {
		clock = func() time.Time { return time.Now().Add(skew) }
		err := asAlice(&Dialer{}, pipe("echo"))
		clock = time.Now
		if skew > 0 && errors.Is(err, ErrTicketExpired) {
			t.Logf("%v: %v", skew, err)
			continue
		}
		expect(fmt.Sprintf("this machine's clock off by %v", skew), err, ErrClock)
	}
	order(t, "login alice 9h")
	clock = func() time.Time { return time.Now().Add(2 * time.Hour) }
	expect("this machine's clock ahead", asAlice(&Dialer{}, pipe("echo")), ErrClock)
	clock = time.Now

	if err := tryOrder("kdc skew -2h"); err == nil {
		expect("the KDC's clock is behind", asAlice(&Dialer{}, pipe("echo")), ErrClock)
		order(t, "kdc skew 2h")
		expect("the KDC's clock is ahead", asAlice(&Dialer{}, pipe("echo")), ErrClock)
		order(t, "kdc skew 0s")
	} else {
		t.Log(err)
	}

	order(t, "kdc stop")
	expect("no KDC", asAlice(&Dialer{}, pipe("echo")), ErrNoKDC)
	order(t, "kdc start")
}

// until waits for something that happens by itself.
func until(t *testing.T, what func() error) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := what()
		if err == nil {
			return
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatal("this is still so: ", err)
		}
	}
}

// TestGuest runs where smbd takes accounts that it does not know for guests.
func TestGuest(t *testing.T) {
	needInside(t)
	_, err := who(&Dialer{Password: &Password{User: "stranger", Secret: "guessed"}}, t)
	if !errors.Is(err, ErrLogon) || !strings.Contains(err.Error(), "guest") {
		t.Errorf("as a guest: %v", err)
	}
	t.Log(err)
	if got, err := who(aliceByPassword(), t); got != "alice" || err != nil {
		t.Errorf("the server sees %q, %v", got, err)
	}
}

// TestNoEncryption runs where smbd does not encrypt.
func TestNoEncryption(t *testing.T) {
	needInside(t)
	d := aliceByPassword()
	if got, err := who(d, t); got != "alice" || err != nil {
		t.Errorf("the server sees %q, %v", got, err)
	}
	d.RequireEncryption = true
	_, err := who(d, t)
	if !errors.Is(err, ErrEncryption) {
		t.Errorf("with encryption required: %v", err)
	}
	t.Log(err)
}

// A machine's own name is one like any other: its own smbd is asked, which has no such pipe.
func TestInsideOwnHost(t *testing.T) {
	needInside(t)
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := aliceByPassword().Dial(within(t, 20*time.Second), `\\`+name+`\pipe\echo`); !errors.Is(err, guise.ErrNoPipe) {
		t.Error(err)
	}
}

func TestInsidePasswordInScopes(t *testing.T) {
	needInside(t)
	for _, name := range []string{"alice", "bob"} {
		err := guise.RunAs(tokenOf(t, name), func(*guise.Scope) error {
			got, err := who(aliceByPassword(), t)
			if name == "alice" && got != "alice" || name == "bob" && !errors.Is(err, ErrNotClients) {
				t.Errorf("alice's password in a scope of %s: %q, %v", name, got, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestInsideManyAtOnce(t *testing.T) {
	needInside(t)
	order(t, "login alice 1h")
	alice := tokenOf(t, "alice")
	var wait sync.WaitGroup
	for i := range 60 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			err := guise.RunAs(alice, func(*guise.Scope) error {
				d := &Dialer{RequireEncryption: i%2 == 0}
				if i%3 == 0 {
					d = aliceByPassword()
				}
				return echo(t, d, 30*time.Second)
			})
			if err != nil {
				t.Error(err)
			}
		}()
	}
	wait.Wait()
	untilNoPumps(t)
}

func TestInsideGivingUp(t *testing.T) {
	needInside(t)
	order(t, "login alice 1h")
	alice := tokenOf(t, "alice")
	var opened int
	for i := range 120 {
		d := aliceByPassword()
		if i%2 == 0 {
			d = &Dialer{}
		}
		limit := time.Duration(i) * time.Millisecond / 2
		err := guise.RunAs(alice, func(*guise.Scope) error {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			begun := time.Now()
			c, err := d.Dial(ctx, pipe("echo"))
			if err == nil {
				opened++
				return c.Close()
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			if took := time.Since(begun); took > limit+2*time.Second {
				return fmt.Errorf("it took %v", took)
			}
			return nil
		})
		if err != nil {
			t.Errorf("within %v: %v", limit, err)
		}
	}
	t.Logf("%d of 120 were opened", opened)
	untilNoPumps(t)
}
