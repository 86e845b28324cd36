package machines

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// npDir is where Debian's smbd looks for pipes, if its "ncalrpc dir" is not set otherwise.
const npDir = "/run/samba/ncalrpc/np"

// smbdLogs is what the log says at which level: who logged on, who was refused, and on which pipe or share, are auth_audit's.
const smbdLogs = "1 auth_audit:5"

// SambaLog returns the path of smbd's log. Every attempt to authenticate is one line in it, which begins with "Auth:" and has the names
// that the client gave, the address, the means and the status, and every session that came about one that begins with "Successful AuthZ:".
func (m *Machine) SambaLog() string { return filepath.Join(m.Dir, "log.smbd") }

// smbConf returns what /etc/samba/smb.conf is to say.
func (m *Machine) smbConf() string {
	c := m.network.config
	global := map[string]string{
		"server role":           "standalone server",
		"workgroup":             "GUISE",
		"netbios name":          m.Name,
		"security":              "user",
		"passdb backend":        "tdbsam",
		"map to guest":          "never",
		"restrict anonymous":    "2",
		"interfaces":            m.Address.String(),
		"bind interfaces only":  "yes",
		"smb ports":             "445",
		"disable netbios":       "yes",
		"name resolve order":    "host",
		"server min protocol":   "SMB2_10",
		"load printers":         "no",
		"disable spoolss":       "yes",
		"realm":                 Realm,
		"kerberos method":       "dedicated keytab",
		"dedicated keytab file": "/etc/krb5.keytab",
		"log file":              m.SambaLog(),
		"log level":             smbdLogs,
		"max log size":          "0",
		// Or every pipe that is missing first starts samba-dcerpcd.
		"rpc start on demand helpers": "no",
	}
	if c.Sign {
		global["server signing"] = "mandatory"
	}
	if c.Encrypt {
		global["server smb encrypt"] = "required"
	}
	maps.Copy(global, c.Extra)
	var b strings.Builder
	b.WriteString("[global]\n")
	for _, name := range slices.Sorted(maps.Keys(global)) {
		fmt.Fprintf(&b, " %s = %s\n", name, global[name])
	}
	return b.String()
}

// prepareSamba writes what smbd needs and makes its accounts. The keytab is the KDC's to make.
func (m *Machine) prepareSamba(ctx context.Context) error {
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{
		{"/etc/samba", 0o755},
		{"/var/lib/samba/private", 0o700},
		{path.Dir(npDir), 0o755},
		{npDir, 0o700}, // smbd refuses any other mode
	} {
		if err := m.mkdir(d.path, d.mode, 0, 0); err != nil {
			return err
		}
	}
	if err := m.write("/etc/samba/smb.conf", m.smbConf(), 0o644); err != nil {
		return err
	}
	for _, a := range m.network.config.Accounts {
		if a.Password == "" {
			continue
		}
		cmd := m.Command(ctx, "smbpasswd", "-s", "-a", a.Name)
		cmd.Stdin = strings.NewReader(a.Password + "\n" + a.Password + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("adding account %s to Samba on %s by smbpasswd: %w: %s", a.Name, m.Name, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// StartSamba starts smbd and waits until it answers. It does nothing if smbd runs.
func (m *Machine) StartSamba(ctx context.Context) error {
	if m.samba != nil {
		return nil
	}
	s, err := m.startService("smbd", []string{m.SambaLog()}, m.Command(context.Background(), "smbd", "--foreground"))
	if err != nil {
		return err
	}
	if err := s.await(ctx, m.negotiate); err != nil {
		return errors.Join(err, s.stop())
	}
	m.samba = s
	return nil
}

// StopSamba stops smbd, and with it every connection.
func (m *Machine) StopSamba() error {
	err := m.samba.stop()
	m.samba = nil
	return err
}

// negotiate has smbd answer the first question of the protocol, which nobody needs to authenticate for: so that no log tells of it.
func (m *Machine) negotiate(ctx context.Context) error {
	c, err := m.Dial(ctx, "tcp", netip.AddrPortFrom(m.Address, 445).String())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = negotiate(c)
	return err
}

// negotiate asks smbd for dialect 3.0.2, and returns whether it requires that clients sign.
func negotiate(c net.Conn) (signs bool, err error) {
	c.SetDeadline(time.Now().Add(patience))
	defer c.SetDeadline(time.Time{})
	const header, body = 64, 36
	dialects := []byte{0x02, 0x03}
	request := make([]byte, 4+header+body)
	request[3] = byte(header + body + len(dialects))
	smb := request[4:]
	copy(smb, "\xfeSMB")
	smb[4] = header
	smb[14] = 1 // a credit; the command is 0
	smb[header] = body
	smb[header+2] = 1 // a dialect
	smb[header+4] = 1 // signing is possible
	if _, err := c.Write(append(request, dialects...)); err != nil {
		return false, err
	}
	reply := make([]byte, 4+header+4)
	if _, err := io.ReadFull(c, reply); err != nil {
		return false, fmt.Errorf("reading smbd's answer: %w", err)
	}
	smb = reply[4:]
	if status := smb[8:12]; !bytes.HasPrefix(smb, []byte("\xfeSMB")) || !bytes.Equal(status, make([]byte, 4)) {
		return false, fmt.Errorf("%s answered % x, which does not accept SMB 3.0.2", c.RemoteAddr(), reply)
	}
	return smb[header+2]&2 != 0, nil
}
