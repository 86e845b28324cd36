package guise

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

var _ = addRole("starts a program", func() {
	self := must1(token.Self())
	must(RunAs(self, func(s *Scope) error {
		cmd := s.Command("/bin/true")
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
			return nil
		}
		fmt.Println("started")
		fmt.Println(cmd.Wait())
		return nil
	}))
})

// A server whose executable has file capabilities is told by Start that it can't start programs as its clients, and why: the second
// stage, which refuses too, can only end.
func TestCommandOfAProgramWithFileCapabilities(t *testing.T) {
	needRoot(t, "to give a program capabilities")
	path := filepath.Join(testdir.Open(t, 0o755), "program")
	must(os.WriteFile(path, must1(os.ReadFile("/proc/self/exe")), 0o755))
	var mount unix.Statfs_t
	must(unix.Statfs(path, &mount))
	if mount.Flags&unix.ST_NOSUID != 0 {
		t.Skipf("%s is mounted nosuid: programs there get no capabilities", filepath.Dir(path))
	}
	for _, c := range []struct{ name, capabilities, says string }{
		{"without", "", "started"},
		// VFS_CAP_REVISION_2 with the effective bit: CAP_SETGID and CAP_SETUID, 6 and 7, permitted.
		{"with", "\x01\x00\x00\x02\xc0" + strings.Repeat("\x00", 15), "set-user-ID or has file capabilities"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.capabilities != "" {
				if err := unix.Setxattr(path, "security.capability", []byte(c.capabilities), 0); err != nil {
					t.Skipf("giving a program capabilities at %s: %v", path, err)
				}
			}
			cmd := exec.Command(path)
			cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", rawRole+"=starts a program")
			cmd.SysProcAttr = asUser(61001, 61001)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil || !strings.Contains(string(out), c.says) {
				t.Errorf("the server's Start says %q, %v, want %q", out, err, c.says)
			}
		})
	}
}
