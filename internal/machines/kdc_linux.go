package machines

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// kdcDir is where the KDC's database is, keytabs where they are until the machines have them.
const (
	kdcDir  = "/var/lib/krb5kdc"
	keytabs = "/run/guise-keytabs"
)

// kdcConf returns what /etc/krb5kdc/kdc.conf is to say. Samba 4.17 does not understand the PAC of this KDC.
func (n *Network) kdcConf() string {
	return fmt.Sprintf(`[kdcdefaults]
 kdc_listen = %[2]s:88
 kdc_tcp_listen = %[2]s:88
[realms]
 %[1]s = {
  database_name = %[3]s/principal
  key_stash_file = %[3]s/stash
  max_life = 24h
  disable_pac = true
  default_principal_flags = +preauth
  master_key_type = aes256-cts
  supported_enctypes = aes256-cts:normal aes128-cts:normal
 }
[logging]
 kdc = FILE:%[4]s
`, Realm, n.Machines[0].Address, kdcDir, n.KDCLog())
}

// KDCLog returns the path of the KDC's log.
func (n *Network) KDCLog() string { return filepath.Join(n.Machines[0].Dir, "krb5kdc.log") }

// makeKDC makes the database with everybody in it, and gives the machines their keytabs.
func (n *Network) makeKDC(ctx context.Context) error {
	first := n.Machines[0]
	for _, dir := range []string{"/etc/krb5kdc", kdcDir, keytabs} {
		if err := first.mkdir(dir, 0o700, 0, 0); err != nil {
			return err
		}
	}
	if err := first.write("/etc/krb5kdc/kdc.conf", n.kdcConf(), 0o600); err != nil {
		return err
	}
	// The database goes with the machine, so its key need not be any good.
	if out, err := first.Command(ctx, "kdb5_util", "create", "-s", "-r", Realm, "-P", "guise").CombinedOutput(); err != nil {
		return fmt.Errorf("making the KDC's database by kdb5_util on %s: %w: %s", first.Name, err, strings.TrimSpace(string(out)))
	}
	if err := n.addPrincipals(ctx); err != nil {
		return err
	}
	for _, m := range n.Machines {
		b, err := os.ReadFile(first.Path(keytabs + "/" + m.Name))
		if err != nil {
			return fmt.Errorf("reading the keytab of %s that kadmin.local made: %w", m.Name, err)
		}
		if err := m.write("/etc/krb5.keytab", string(b), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// addPrincipals has kadmin.local make everybody. It reads the questions, so that no command line has a password in it; it
// returns 0 whatever becomes of them, so its answers are looked at.
func (n *Network) addPrincipals(ctx context.Context) error {
	var questions strings.Builder
	var answers []string
	for _, a := range n.config.Accounts {
		if a.Password == "" {
			continue
		}
		fmt.Fprintf(&questions, "addprinc -pw %s %s\n", quote(a.Password), a.Name)
		answers = append(answers, fmt.Sprintf("Principal \"%s@%s\" created.", a.Name, Realm))
	}
	for _, m := range n.Machines {
		for _, service := range []string{"cifs", "host"} {
			principal := service + "/" + m.Host
			fmt.Fprintf(&questions, "addprinc -randkey %s\nktadd -k %s/%s %[1]s\n", principal, keytabs, m.Name)
			answers = append(answers, fmt.Sprintf("Principal \"%s@%s\" created.", principal, Realm),
				fmt.Sprintf("Entry for principal %s with kvno", principal))
		}
	}
	cmd := n.Machines[0].Command(ctx, "kadmin.local", "-r", Realm)
	cmd.Stdin = strings.NewReader(questions.String())
	out, err := cmd.CombinedOutput()
	if err == nil {
		for _, answer := range answers {
			if !strings.Contains(string(out), answer) {
				err = errors.Join(err, fmt.Errorf("it does not say %q", answer))
			}
		}
	}
	if err != nil {
		return fmt.Errorf("making principals by kadmin.local on %s: %w: %s", n.Machines[0].Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// quote has kadmin take a word as it is.
func quote(word string) string { return `"` + strings.ReplaceAll(word, `"`, `""`) + `"` }

// StartKDC starts the KDC and waits until it gives tickets. It does nothing if the KDC runs.
func (n *Network) StartKDC(ctx context.Context) error {
	if n.kdc != nil {
		return nil
	}
	first := n.Machines[0]
	args := []string{"krb5kdc", "-n", "-r", Realm}
	if n.skew != 0 {
		// faketime(1) itself would stand between the KDC and its signals.
		args = append([]string{"env", "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1", "FAKETIME_DONT_FAKE_MONOTONIC=1",
			fmt.Sprintf("FAKETIME=%+d", int64(n.skew/time.Second))}, args...)
	}
	s, err := first.startService("krb5kdc", []string{n.KDCLog()}, first.Command(context.Background(), args[0], args[1:]...))
	if err != nil {
		return err
	}
	if err := s.await(ctx, first.askTicket); err != nil {
		return errors.Join(err, s.stop())
	}
	n.kdc = s
	return nil
}

// askTicket has the KDC give the machine a ticket, which nobody keeps.
func (m *Machine) askTicket(ctx context.Context) error {
	out, err := m.Command(ctx, "kinit", "-k", "-c", "MEMORY:", "host/"+m.Host).CombinedOutput()
	if err != nil {
		return fmt.Errorf("kinit: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// StopKDC stops the KDC.
func (n *Network) StopKDC() error {
	err := n.kdc.stop()
	n.kdc = nil
	return err
}

// SkewKDC starts the KDC again with its clock off by d, in whole seconds, or with the right time if that is 0. It takes faketime, of
// Debian's package faketime.
func (n *Network) SkewKDC(ctx context.Context, d time.Duration) error {
	if d != 0 && program("faketime") == "" {
		return errors.New("running a KDC with its clock off takes faketime: install Debian's package faketime (scripts/machines does)")
	}
	if err := n.StopKDC(); err != nil {
		return err
	}
	n.skew = d.Truncate(time.Second)
	return n.StartKDC(ctx)
}

// Login gets an account a ticket, by the account's password, and leaves it in the account's credential cache on this machine,
// FILE:/tmp/krb5cc_UID, for lifetime, or as long as the KDC lets it if that is 0. The file is the account's, and nobody else can read it.
func (m *Machine) Login(ctx context.Context, account string, lifetime time.Duration) error {
	a, err := m.network.account(account)
	if err != nil {
		return err
	}
	if a.Password == "" {
		return fmt.Errorf("account %s has no password, so it can't log in", account)
	}
	args := []string{"-c", "FILE:" + a.cache()}
	if lifetime != 0 {
		args = append(args, "-l", fmt.Sprintf("%ds", max(1, int64(lifetime/time.Second))))
	}
	cmd := m.CommandAs(ctx, account, "kinit", append(args, account+"@"+Realm)...)
	cmd.Stdin = strings.NewReader(a.Password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("logging %s in on %s by kinit: %w: %s", account, m.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Logout removes an account's credential cache on this machine.
func (m *Machine) Logout(account string) error {
	a, err := m.network.account(account)
	if err != nil {
		return err
	}
	err = m.inRoot(func(root *os.Root) error { return root.Remove(strings.TrimPrefix(a.cache(), "/")) })
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the credential cache of %s on %s: %w", account, m.Name, err)
	}
	return nil
}
