package machines_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/guise-project/guise/internal/machines"
	"github.com/guise-project/guise/internal/machinestest"
)

// connectTo are the arguments for smbclient to open a machine's IPC$.
func connectTo(m *machines.Machine, options ...string) []string {
	return append(options, "//"+m.Host+"/IPC$", "-c", "exit")
}

// logged returns what smbd's log says since it had size bytes.
func logged(t *testing.T, m *machines.Machine, size int64) string {
	t.Helper()
	b, err := os.ReadFile(m.SambaLog())
	if err != nil {
		t.Fatal(err)
	}
	return string(b[size:])
}

func TestSambaAuthenticates(t *testing.T) {
	for _, test := range []struct {
		name          string
		sign, encrypt bool
	}{{"plain", false, false}, {"sign", true, false}, {"encrypt", false, true}} {
		t.Run(test.name, func(t *testing.T) {
			n := start(t, &machines.Config{Accounts: people, Sign: test.sign, Encrypt: test.encrypt})
			second, third := n.Machines[1], n.Machines[2]
			needSmbclient(t, second)
			if err := second.Login(t.Context(), "alice", time.Hour); err != nil {
				t.Fatal(err)
			}
			kerberos := []string{"--no-pass", "--use-kerberos=required"}
			ntlm := func(user, password string) []string {
				return []string{"--use-kerberos=off", "-U", user + "%" + password}
			}
			for _, attempt := range []struct {
				name, account string
				arguments     []string
				fails         string // what smbclient says then
				logs          string
			}{
				{"Kerberos", "alice", kerberos, "", `Successful AuthZ: [SMB2,krb5] user [GUISE]\[alice]`},
				{"NTLM", "bob", ntlm("alice", alice.Password), "", `Successful AuthZ: [SMB2,NTLMSSP] user [MACHINE3]\[alice]`},
				{"no ticket", "bob", kerberos, "NT_STATUS", ""},
				{"wrong password", "bob", ntlm("alice", "guessed"), "NT_STATUS_LOGON_FAILURE", `\[alice] at [.*] with [NTLMv2] status [NT_STATUS_WRONG_PASSWORD]`},
				{"unknown", "bob", ntlm("mallory", "guessed"), "NT_STATUS_LOGON_FAILURE", `\[mallory] at [.*] with [NTLMv2] status [NT_STATUS_NO_SUCH_USER]`},
				{"Unix alone", "bob", ntlm("local", "guessed"), "NT_STATUS_LOGON_FAILURE", `\[local] at [.*] with [NTLMv2] status [NT_STATUS_NO_SUCH_USER]`},
				{"anonymous", "bob", ntlm("", ""), "NT_STATUS", ""},
			} {
				info, err := os.Stat(third.SambaLog())
				if err != nil {
					t.Fatal(err)
				}
				out, err := second.CommandAs(t.Context(), attempt.account, "smbclient", connectTo(third, attempt.arguments...)...).CombinedOutput()
				if (err == nil) != (attempt.fails == "") || !strings.Contains(string(out), attempt.fails) {
					t.Errorf("%s: smbclient says %q, %v; want an error that says %q", attempt.name, out, err, attempt.fails)
				}
				log := logged(t, third, info.Size())
				if !inOrder(log, strings.Split(attempt.logs, ".*")) {
					t.Errorf("%s: want smbd's log to have %q:\n%s", attempt.name, attempt.logs, log)
				}
				if attempt.fails != "" && strings.Contains(log, `\[alice] [S-1-5-21-`) {
					t.Errorf("%s: smbd's log tells of a session of alice:\n%s", attempt.name, log)
				}
			}
			c, err := third.Dial(t.Context(), "tcp", third.Address.String()+":445")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if signs, err := machines.Negotiate(c); signs != test.sign || err != nil {
				t.Errorf("smbd requires signing: %v, %v; want %v", signs, err, test.sign)
			}
			// That dialect can't encrypt.
			old := append(ntlm("alice", alice.Password), "--option=client max protocol=SMB2_10")
			out, err := second.Command(t.Context(), "smbclient", connectTo(third, old...)...).CombinedOutput()
			if (err == nil) == test.encrypt {
				t.Errorf("a client that can't encrypt: %q, %v", out, err)
			}
		})
	}
}

// inOrder reports whether parts are in a line of s, one after the other.
func inOrder(s string, parts []string) bool {
	for line := range strings.Lines(s) {
		for i, part := range parts {
			_, after, found := strings.Cut(line, part)
			if !found {
				break
			}
			if line = after; i == len(parts)-1 {
				return true
			}
		}
	}
	return parts[0] == ""
}

func needSmbclient(t *testing.T, m *machines.Machine) {
	t.Helper()
	if m.Command(t.Context(), "smbclient", "--version").Run() != nil {
		machinestest.Missing(t, "smbclient is not installed: Debian's package smbclient has it")
	}
}

func TestSambaStopsAndStarts(t *testing.T) {
	n := start(t, &machines.Config{Machines: 2})
	m := n.Machines[1]
	address := m.Address.String() + ":445"
	for range 3 {
		c, err := n.Machines[0].Dial(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := machines.Negotiate(c); err != nil { // so that a child of smbd is at work
			t.Error(err)
		}
		if err := m.StopSamba(); err != nil {
			t.Fatal(err)
		}
		if out := output(t, m, "", "ps", "-eo", "args"); strings.Contains(out, "smbd") {
			t.Errorf("smbd was stopped and is there:\n%s", out)
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); os.IsTimeout(err) { // an end or a reset is as well
			t.Errorf("a connection to an smbd that was stopped: %v", err)
		}
		if c, err := n.Machines[0].Dial(t.Context(), "tcp", address); err == nil {
			c.Close()
			t.Error("an smbd that was stopped takes a connection")
		}
		if err := m.StopSamba(); err != nil {
			t.Errorf("stopping again: %v", err)
		}
		if err := m.StartSamba(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.StartSamba(t.Context()); err != nil {
		t.Errorf("starting again: %v", err)
	}
}

func TestLogins(t *testing.T) {
	n := start(t, &machines.Config{Accounts: people, Machines: 2})
	m := n.Machines[1]
	if err := m.Login(t.Context(), "alice", time.Hour); err != nil {
		t.Fatal(err)
	}
	const cache = "/tmp/krb5cc_61001"
	if got := output(t, m, "", "stat", "-c", "%u %g %a", cache); got != "61001 61001 600\n" {
		t.Errorf("the credential cache has owner, group and mode %s", got)
	}
	if got := output(t, m, "alice", "klist"); !strings.Contains(got, "FILE:"+cache) || !strings.Contains(got, "alice@GUISE.TEST") {
		t.Errorf("klist says\n%s", got)
	}
	if err := m.Logout("alice"); err != nil {
		t.Error(err)
	}
	if err := m.Logout("alice"); err != nil {
		t.Errorf("logging out again: %v", err)
	}
	valid := func() bool { return m.CommandAs(t.Context(), "alice", "klist", "-s").Run() == nil }
	if valid() {
		t.Error("a ticket is left")
	}

	// A ticket that expires soon.
	if err := m.Login(t.Context(), "alice", 2*time.Second); err != nil {
		t.Fatal(err)
	}
	if !valid() {
		t.Error("a ticket of two seconds is not valid")
	}
	until(t, func() error {
		if valid() {
			return fmt.Errorf("the ticket is valid")
		}
		return nil
	})

	if err := m.Login(t.Context(), "local", time.Hour); err == nil || !strings.Contains(err.Error(), "no password") {
		t.Errorf("logging in without a password: %v", err)
	}
	if err := n.StopKDC(); err != nil {
		t.Fatal(err)
	}
	if err := m.Login(t.Context(), "bob", time.Hour); err == nil || !strings.Contains(err.Error(), "contact any KDC") {
		t.Errorf("logging in without a KDC: %v", err)
	}
	if err := n.StartKDC(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Login(t.Context(), "bob", time.Hour); err != nil {
		t.Errorf("logging in when the KDC is there again: %v", err)
	}
}

func TestClockOfKDC(t *testing.T) {
	n := start(t, &machines.Config{Accounts: people, Machines: 2})
	m := n.Machines[1]
	if m.Command(t.Context(), "faketime", "--version").Run() != nil {
		machinestest.Missing(t, "faketime is not installed: Debian's package faketime has it")
	}
	for _, skew := range []time.Duration{-2 * time.Hour, 2 * time.Hour, 0} {
		if err := n.SkewKDC(t.Context(), skew); err != nil {
			t.Fatal(err)
		}
		if err := m.Login(t.Context(), "alice", time.Minute); err != nil {
			t.Error(err)
			continue
		}
		// klist prints in the local time zone of the machine, which is told here.
		cmd := m.CommandAs(t.Context(), "alice", "klist")
		cmd.Env = append(cmd.Env, "TZ=UTC", "LC_ALL=C")
		out, err := cmd.Output()
		want := time.Now().UTC().Add(skew)
		if hour := want.Format("15:"); err != nil || !strings.Contains(string(out), want.Format("01/02/06 ")+hour) {
			if before := want.Add(-time.Minute); !strings.Contains(string(out), before.Format("01/02/06 15:")) {
				t.Errorf("with the KDC's clock off by %v, klist says\n%s, %v\nwant a ticket of about %s", skew, out, err, want)
			}
		}
	}
}
