package features_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/features"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/without"
)

// missing, in the environment, makes the test binary say what is there without a socket option.
const missing = "GUISE_TEST_WITHOUT"

func TestMain(m *testing.M) {
	if v := os.Getenv(missing); v != "" {
		var option, errno int
		fmt.Sscan(v, &option, &errno)
		if err := without.SocketOptionsFail(syscall.Errno(errno), option); err != nil {
			panic(err)
		}
		for _, f := range features.All() {
			err := f.Err()
			fmt.Println(f.Name, errors.Is(err, features.ErrNotSupported), err)
		}
		err := features.DynamicTracking()
		fmt.Println("dynamic tracking", errors.Is(err, features.ErrNotSupported), err)
		os.Exit(0)
	}
	os.Exit(leftover.Main(m))
}

func TestFeaturesSayWhatTheyAreFor(t *testing.T) {
	version := regexp.MustCompile(`^[0-9]+\.[0-9]+$`)
	for _, f := range features.All() {
		if f.Name == "" || f.Use == "" || f.Without == "" || !version.MatchString(f.Since) {
			t.Errorf("%+v", f)
		}
	}
	if features.Kernel() == "" || strings.ContainsAny(features.Kernel(), "\n ") {
		t.Errorf("Kernel = %q", features.Kernel())
	}
}

// TestFeaturesAreThoseOfThisKernel asks the kernel in other ways than the probes do.
func TestFeaturesAreThoseOfThisKernel(t *testing.T) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	there := map[*features.Feature]bool{}
	pidfd, err := unix.GetsockoptInt(p[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if there[features.PeerPIDFD] = err == nil; err == nil {
		defer unix.Close(pidfd)
		var fs unix.Statfs_t
		if err := unix.Fstatfs(pidfd, &fs); err != nil {
			t.Fatal(err)
		}
		there[features.Pidfs] = fs.Type == unix.PID_FS_MAGIC
	}
	there[features.PassRights] = unix.SetsockoptInt(p[0], unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0) == nil
	there[features.PeerGroups] = unix.SetsockoptInt(p[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1) == nil // older than all
	for _, f := range features.All() {
		err := f.Err()
		if (err == nil) != there[f] {
			t.Errorf("%s: %v; it is there: %v", f.Name, err, there[f])
		}
		if err != nil && (!errors.Is(err, features.ErrNotSupported) || !strings.Contains(err.Error(), f.Since)) {
			t.Errorf("%s: %v does not name Linux %s", f.Name, err, f.Since)
		}
	}
	if want := there[features.PeerPIDFD] && there[features.Pidfs]; (features.DynamicTracking() == nil) != want {
		t.Errorf("DynamicTracking: %v", features.DynamicTracking())
	}
}

func TestMissingFeaturesNameTheLinuxThatHasThem(t *testing.T) {
	tests := []struct {
		option int
		errno  syscall.Errno
		want   []string
	}{
		{unix.SO_PEERGROUPS, unix.ENOPROTOOPT, []string{"SO_PEERGROUPS true SO_PEERGROUPS: not supported by this kernel: it takes Linux 4.13"}},
		{unix.SO_PEERPIDFD, unix.ENOPROTOOPT, []string{
			"SO_PEERPIDFD true SO_PEERPIDFD: not supported by this kernel: it takes Linux 6.5",
			"pidfs true pidfs: not supported by this kernel: it takes Linux 6.9",
			"dynamic tracking true SO_PEERPIDFD: not supported by this kernel: it takes Linux 6.5",
		}},
		{unix.SO_PASSRIGHTS, unix.ENOPROTOOPT, []string{"SO_PASSRIGHTS true SO_PASSRIGHTS: not supported by this kernel: it takes Linux 6.16"}},
		{unix.SO_PEERPIDFD, unix.EMFILE, []string{
			"SO_PEERPIDFD false SO_PEERPIDFD: probing for it: too many open files",
			"dynamic tracking false SO_PEERPIDFD: probing for it: too many open files",
		}},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.option, test.errno), func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", fmt.Sprintf("%s=%d %d", missing, test.option, int(test.errno)))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range test.want {
				if !strings.Contains("\n"+string(out), "\n"+want+"\n") {
					t.Errorf("it says\n%swithout the line\n%s", out, want)
				}
			}
		})
	}
}
