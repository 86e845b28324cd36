package machines

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// The machines' domain and realm.
const (
	Domain = "guise.test"
	Realm  = "GUISE.TEST"
)

// writeEtc writes what makes a machine know itself, the others and its accounts, and nobody else.
func (m *Machine) writeEtc() error {
	accounts := m.network.config.Accounts
	groups, err := groupFile(accounts)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		path, text string
		mode       fs.FileMode
	}{
		{"/etc/hostname", m.Name + "\n", 0o644},
		{"/etc/hosts", m.network.hostsFile(), 0o644},
		{"/etc/resolv.conf", "# no DNS: see hosts\n", 0o644},
		{"/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\nnetworks: files\nprotocols: files\nservices: files\n", 0o644},
		{"/etc/passwd", passwdFile(accounts), 0o644},
		{"/etc/group", groups, 0o644},
		{"/etc/shadow", shadowFile(accounts), 0o600},
		{"/etc/krb5.conf", m.network.krb5File(), 0o644},
	} {
		if err := m.write(f.path, f.text, f.mode); err != nil {
			return err
		}
	}
	for _, a := range accounts {
		if err := m.mkdir(a.home(), 0o700, a.UID, a.GID); err != nil {
			return err
		}
	}
	return nil
}

func (n *Network) hostsFile() string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n")
	for _, m := range n.Machines {
		fmt.Fprintf(&b, "%s %s %s\n", m.Address, m.Host, m.Name)
	}
	return b.String()
}

// krb5File names the KDC by its address and asks no DNS for anything.
func (n *Network) krb5File() string {
	return fmt.Sprintf(`[libdefaults]
 default_realm = %[1]s
 dns_lookup_realm = false
 dns_lookup_kdc = false
 dns_canonicalize_hostname = false
 rdns = false
 forwardable = false
 default_ccache_name = FILE:/tmp/krb5cc_%%{uid}
[realms]
 %[1]s = {
  kdc = %[2]s
 }
[domain_realm]
 .%[3]s = %[1]s
 %[3]s = %[1]s
`, Realm, n.Machines[0].Address, Domain)
}

// write replaces a file in a machine. It is this process that writes, so a symbolic link that leads out of the machine must not be
// followed: os.Root sees to that.
func (m *Machine) write(name, text string, mode fs.FileMode) error {
	err := m.inRoot(func(root *os.Root) error {
		name := strings.TrimPrefix(name, "/")
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		return errors.Join(err, f.Chmod(mode), f.Close())
	})
	if err != nil {
		return fmt.Errorf("writing %s of %s: %w", name, m.Name, err)
	}
	return nil
}

// mkdir makes a directory in a machine, with those above it, and gives it that mode and those owners.
func (m *Machine) mkdir(name string, mode fs.FileMode, uid, gid uint32) error {
	err := m.inRoot(func(root *os.Root) error {
		var above []string
		for dir := strings.TrimPrefix(name, "/"); dir != "."; dir = path.Dir(dir) {
			above = append([]string{dir}, above...)
		}
		for _, dir := range above {
			if err := root.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
		f, err := root.Open(strings.TrimPrefix(name, "/"))
		if err != nil {
			return err
		}
		return errors.Join(f.Chmod(mode), f.Chown(int(uid), int(gid)), f.Close())
	})
	if err != nil {
		return fmt.Errorf("making directory %s of %s: %w", name, m.Name, err)
	}
	return nil
}

func (m *Machine) inRoot(f func(*os.Root) error) error {
	root, err := os.OpenRoot(m.Path("/"))
	if err != nil {
		return err
	}
	return errors.Join(f(root), root.Close())
}
