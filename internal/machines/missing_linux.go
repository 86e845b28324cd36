package machines

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// programs are those that machines are made with, and the Debian packages that have them.
var programs = []struct{ name, debian string }{
	{"smbd", "samba"},
	{"smbpasswd", "samba-common-bin"},
	{"krb5kdc", "krb5-kdc"},
	{"kdb5_util", "krb5-kdc"},
	{"kadmin.local", "krb5-admin-server"},
	{"kinit", "krb5-user"},
	{"ip", "iproute2"},
	{"unshare", "util-linux"},
	{"nsenter", "util-linux"},
	{"setpriv", "util-linux"},
	{"mount", "mount"},
	{"cp", "coreutils"},
}

// searched is where programs are looked for, here and in the machines.
const searched = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Missing returns why machines can't be made here: who runs this is not root, programs are not installed, or the system
// refuses namespaces. It is nil if they can.
func Missing() error {
	if os.Geteuid() != 0 {
		return errors.New("making machines takes root: run this as root")
	}
	var names, packages []string
	for _, p := range programs {
		if program(p.name) == "" {
			names = append(names, p.name)
			if !slices.Contains(packages, p.debian) {
				packages = append(packages, p.debian)
			}
		}
	}
	if names != nil {
		return fmt.Errorf("making machines takes programs that are not in %s: %s; install Debian's packages %s (scripts/machines does)",
			searched, strings.Join(names, ", "), strings.Join(packages, " "))
	}
	return namespacesMissing()
}

// namespacesMissing has a small machine made, and returns what the system said if it refused.
func namespacesMissing() error {
	const script = `set -e
mount -t tmpfs none /tmp
ip link add name guise0 type bridge
ip link add name guise1 type veth peer name guise2`
	args := append(slices.Clone(namespaces), "/bin/sh", "-c", script)
	out, err := outside("unshare", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("making machines takes namespaces with mounts, a bridge and veth interfaces in them, which the system refuses (a container needs to be privileged): unshare %s: %w: %s",
			strings.Join(namespaces, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// program returns where a program is, or "".
func program(name string) string {
	for _, dir := range filepath.SplitList(searched) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// outside returns a command of this machine's, with an environment that says nothing about who runs it.
func outside(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	if path := program(name); path != "" {
		cmd = exec.Command(path, args...)
	}
	cmd.Env = environment("root", "/root")
	return cmd
}

// environment is what programs know from the start, in the machines too.
func environment(user, home string) []string {
	return []string{"PATH=" + searched, "LANG=C.UTF-8", "USER=" + user, "LOGNAME=" + user, "HOME=" + home, "SHELL=/bin/sh"}
}
