package smb

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// opens counts what happens to a file.
type opens struct {
	t  *testing.T
	fd int
}

func watchOpens(t *testing.T, path string) *opens {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN|unix.IN_ACCESS); err != nil {
		t.Fatal(err)
	}
	return &opens{t, fd}
}

func (o *opens) any() bool {
	n, err := unix.Read(o.fd, make([]byte, 4096))
	return n > 0 && err == nil
}

// cacheOf leaves a credential cache for a uid of nobody's where a client's is looked for.
func cacheOf(t *testing.T, uid int) string {
	t.Helper()
	path := fmt.Sprintf("/tmp/krb5cc_%d", uid)
	if _, err := os.Lstat(path); err == nil {
		t.Skip(path + " is there already")
	}
	t.Cleanup(func() { os.Remove(path) })
	host := "cifs/host.a.test@A.TEST"
	write(t, path, string(ccacheOf("somebody@A.TEST", entry(t, "krbtgt/A.TEST@A.TEST", time.Hour), entry(t, host, time.Hour))), 0o600)
	if err := os.Chown(path, uid, uid); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNoDelegation(t *testing.T) {
	needRoot(t)
	const uid = 61987
	cache := cacheOf(t, uid)
	server := newCounter(t)
	origin := token.Origin{Client: netip.MustParseAddrPort("192.0.2.9:1234"), Account: "somebody", Domain: "A"}
	worn, err := token.OverNetwork(uid, uid, nil, origin)
	if err != nil {
		t.Fatal(err)
	}
	watched := watchOpens(t, cache)
	for _, d := range []*Dialer{
		{Address: server.address},
		{Address: server.address, Password: &Password{User: "root", Secret: "secret"}},
		{Address: server.address, QoS: &guise.QoS{Tracking: guise.Dynamic}},
	} {
		for _, name := range []string{`\\host.a.test\pipe\x`, `\\localhost\pipe\x`} {
			err := guise.RunAs(worn, func(s *guise.Scope) error {
				c, err := d.Dial(t.Context(), name)
				if !errors.Is(err, guise.ErrNoDelegation) {
					t.Errorf("%+v %s: %v, %v; want ErrNoDelegation", d, name, c, err)
				}
				s.Go(func() error {
					if _, err := d.Dial(t.Context(), name); !errors.Is(err, guise.ErrNoDelegation) {
						t.Errorf("on another goroutine of the scope: %v", err)
					}
					return nil
				})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if watched.any() {
		t.Error("the credential cache was opened")
	}
	server.wantNone()

	// Without the origin the same goes out, with that cache.
	local, err := token.FromIDs(uid, uid, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = guise.RunAs(local, func(*guise.Scope) error {
		_, err := (&Dialer{Address: server.address}).Dial(within(t, 20*time.Second), `\\host.a.test\pipe\x`)
		return err
	})
	if !errors.Is(err, ErrUnreachable) || !watched.any() || server.calls.Load() != 2 {
		t.Errorf("a local client: %v, %d calls", err, server.calls.Load())
	}
}

// The process's tickets are not the client's, nor is a password that the program happens to have.
func TestScopesHaveTheirOwnCredentials(t *testing.T) {
	needRoot(t)
	const uid = 61988
	server := newCounter(t)
	own := t.TempDir() + "/cache"
	write(t, own, string(ccacheOf("root@A.TEST", entry(t, "cifs/host.a.test@A.TEST", time.Hour))), 0o600)
	t.Setenv(cacheVariable, "FILE:"+own)
	worn, err := token.FromIDs(uid, uid, nil)
	if err != nil {
		t.Fatal(err)
	}
	watched := watchOpens(t, own)
	err = guise.RunAs(worn, func(*guise.Scope) error {
		_, err := (&Dialer{Address: server.address}).Dial(within(t, 20*time.Second), `\\host.a.test\pipe\x`)
		return err
	})
	if !errors.Is(err, ErrNoTicket) || !strings.Contains(fmt.Sprint(err), fmt.Sprintf("krb5cc_%d", uid)) || watched.any() {
		t.Errorf("a client without tickets: %v", err)
	}
	for _, user := range []string{"root", "no-such-user"} {
		err = guise.RunAs(worn, func(*guise.Scope) error {
			_, err := (&Dialer{Address: server.address, Password: &Password{Domain: "A", User: user, Secret: "verysecret"}}).Dial(within(t, 20*time.Second), `\\host.a.test\pipe\x`)
			return err
		})
		if !errors.Is(err, ErrNotClients) || !strings.Contains(fmt.Sprint(err), "outside of the scope") || strings.Contains(fmt.Sprint(err), "verysecret") {
			t.Errorf("%s's password in a scope of uid %d: %v", user, uid, err)
		}
	}
	server.wantNone()

	// The process itself uses its own.
	_, err = (&Dialer{Address: server.address}).Dial(within(t, 20*time.Second), `\\host.a.test\pipe\x`)
	if !errors.Is(err, ErrUnreachable) || !watched.any() {
		t.Errorf("the process: %v", err)
	}
}

func TestPasswordOfTheScopesClient(t *testing.T) {
	needRoot(t)
	worn, err := token.Lookup("daemon")
	if err != nil {
		t.Skip(err)
	}
	if err := (Password{Domain: "ANY", User: "daemon", Secret: "x"}).checkClients(worn); err != nil {
		t.Error(err)
	}
	if err := (Password{User: "root", Secret: "x"}).checkClients(worn); !errors.Is(err, ErrNotClients) {
		t.Error(err)
	}
}

// An account without a name, or a password, would be nobody's to NTLM.
func TestPasswordsThatAreNone(t *testing.T) {
	server := newCounter(t)
	for _, p := range []Password{{}, {User: "alice"}, {Secret: "secret"}, {User: "al\x00ice", Secret: "secret"}} {
		if _, err := (&Dialer{Address: server.address, Password: &p}).Dial(within(t, 20*time.Second), `\\host\pipe\x`); !errors.Is(err, ErrLogon) {
			t.Errorf("%q: %v", p, err)
		}
	}
	server.wantNone()
}

func TestPasswordsDoNotPrint(t *testing.T) {
	p := Password{Domain: "D", User: "u", Secret: "verysecret"}
	text, err := p.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	d := Dialer{Password: &p}
	for _, s := range []string{fmt.Sprint(p, &p), fmt.Sprintf("%v %+v %#v %q %s", p, p, p, p, p), fmt.Sprintf("%v %+v", d, &d), p.LogValue().String(), string(text)} {
		if strings.Contains(s, "verysecret") {
			t.Error(s)
		}
	}
}
