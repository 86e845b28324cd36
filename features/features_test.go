package features_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/features"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/without"
)

// missing, in the environment, makes the test binary say what is there without a socket option.
const missing = "GUISE_TEST_WITHOUT"

func TestMain(m *testing.M) {
	if v := os.Getenv(missing); v != "" {
		doWithout(v)
		for _, f := range features.All() {
			err := f.Err()
			fmt.Println(f.Name, kindOf(err), err)
		}
		err := features.DynamicTracking()
		fmt.Println("dynamic tracking", kindOf(err), err)
		os.Exit(0)
	}
	os.Exit(leftover.Main(m))
}

// doWithout takes away what is said: an option of sockets and how it fails, signal 34, sending signals, or nothing.
func doWithout(what string) {
	runtime.LockOSThread()
	var err error
	switch what {
	case "nothing":
	case "signal 34":
		err = takeSignal34()
	case "queued signals":
		err = without.Call(unix.SYS_RT_TGSIGQUEUEINFO, unix.EPERM)
	case "descriptors":
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Max: 1 << 10})
	default:
		var option, errno int
		fmt.Sscan(what, &option, &errno)
		err = without.SocketOptionsFail(syscall.Errno(errno), option)
	}
	if err != nil {
		panic(err)
	}
}

// takeSignal34 has the process ignore the signal, as other code of a program may.
func takeSignal34() error {
	ignore := struct{ handler, flags, restorer, mask uintptr }{handler: 1} // SIG_IGN
	_, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, 34, uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

func kindOf(err error) string {
	switch {
	case err == nil:
		return "there"
	case errors.Is(err, features.ErrNotSupported):
		return "not supported"
	case errors.Is(err, features.ErrNotHere):
		return "not here"
	}
	return "failed"
}

func TestFeaturesSayWhatTheyAreFor(t *testing.T) {
	version := regexp.MustCompile(`^[0-9]+\.[0-9]+$`)
	for _, f := range features.All() {
		if f.Name == "" || f.Use == "" || f.Without == "" || !version.MatchString(f.Since) && (f.Since != "" || f.Takes == "") {
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
	there[features.ProcessEvents] = processEvents(t)
	_ = features.ScopesFollow.Err() // takes the signal if it can
	there[features.ScopesFollow] = catches(t, 34)
	for _, f := range features.All() {
		err := f.Err()
		if (err == nil) != there[f] {
			t.Errorf("%s: %v; it is there: %v", f.Name, err, there[f])
		}
		if f.Takes != "" {
			if err != nil && (!errors.Is(err, features.ErrNotHere) || !strings.Contains(err.Error(), f.Takes)) {
				t.Errorf("%s: %v does not say that it takes %s", f.Name, err, f.Takes)
			}
		} else if err != nil && (!errors.Is(err, features.ErrNotSupported) || !strings.Contains(err.Error(), f.Since)) {
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
		{unix.SO_PEERGROUPS, unix.ENOPROTOOPT, []string{"SO_PEERGROUPS not supported SO_PEERGROUPS: not supported by this kernel: it takes Linux 4.13"}},
		{unix.SO_PEERPIDFD, unix.ENOPROTOOPT, []string{
			"SO_PEERPIDFD not supported SO_PEERPIDFD: not supported by this kernel: it takes Linux 6.5",
			"pidfs not supported pidfs: not supported by this kernel: it takes Linux 6.9",
			"dynamic tracking not supported SO_PEERPIDFD: not supported by this kernel: it takes Linux 6.5",
		}},
		{unix.SO_PASSRIGHTS, unix.ENOPROTOOPT, []string{"SO_PASSRIGHTS not supported SO_PASSRIGHTS: not supported by this kernel: it takes Linux 6.16"}},
		{unix.SO_PEERPIDFD, unix.EMFILE, []string{
			"SO_PEERPIDFD failed SO_PEERPIDFD: probing for it: too many open files",
			"dynamic tracking failed SO_PEERPIDFD: probing for it: too many open files",
		}},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.option, test.errno), func(t *testing.T) {
			out := saysWithout(t, fmt.Sprintf("%d %d", test.option, int(test.errno)), syscall.SysProcAttr{})
			for _, want := range test.want {
				if !strings.Contains("\n"+out, "\n"+want+"\n") {
					t.Errorf("it says\n%swithout the line\n%s", out, want)
				}
			}
		})
	}
}

// saysWithout returns what a process says that does without what.
func saysWithout(t *testing.T, what string, attr syscall.SysProcAttr) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", missing+"="+what)
	cmd.SysProcAttr = &attr
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestWhatAProcessCanBeWithout(t *testing.T) {
	if err := errors.Join(features.ProcessEvents.Err(), features.ScopesFollow.Err()); err != nil {
		t.Skipf("it is not to be had here either: %v", err)
	}
	root := []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	group := []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	const events, follow = "process connector ", "following in scopes "
	for _, test := range []struct {
		name, without string
		attr          syscall.SysProcAttr
		want          []string
	}{
		{"as it is", "nothing", syscall.SysProcAttr{}, []string{events + "there", follow + "there"}},
		{"network namespace", "nothing", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, []string{
			events + "not here process connector: not to be had in this process: subscribing to the process connector: connection refused (it takes Linux 6.6, the initial network",
			follow + "there",
		}},
		{"user namespace", "nothing", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: root, GidMappings: group}, []string{
			events + "not here process connector: not to be had in this process: the process connector is silent",
			follow + "not here following in scopes: not to be had in this process: threads can't be made to follow in this process: setgroups: operation not permitted",
		}},
		{"user namespace with groups", "nothing", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: root, GidMappings: group, GidMappingsEnableSetgroups: true}, []string{
			events + "not here process connector: not to be had in this process: the process connector is silent",
			follow + "not here following in scopes: not to be had in this process: uid and gid 4294967293",
		}},
		{"signal 34", "signal 34", syscall.SysProcAttr{}, []string{
			events + "there",
			follow + "not here following in scopes: not to be had in this process: threads can't be made to follow in this process: signal 34 is taken by other code of this program (it takes signal 34,",
		}},
		{"queued signals", "queued signals", syscall.SysProcAttr{}, []string{
			events + "there",
			follow + "not here following in scopes: not to be had in this process: threads can't be made to follow in this process: rt_tgsigqueueinfo: operation not permitted",
		}},
		{"descriptors", "descriptors", syscall.SysProcAttr{}, []string{
			events + "failed process connector: probing for it: opening a socket of the connector: too many open files",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := without.Namespaces(test.attr.Cloneflags); err != nil {
				t.Skipf("making the namespace is not permitted: %v", err)
			}
			if test.attr.GidMappingsEnableSetgroups && os.Geteuid() != 0 {
				t.Skip("to let a user namespace set groups takes root")
			}
			out := saysWithout(t, test.without, test.attr)
			for _, want := range test.want {
				if !strings.Contains("\n"+out, "\n"+want) {
					t.Errorf("it says\n%swithout a line that begins\n%s", out, want)
				}
			}
		})
	}
}

// processEvents reports whether the kernel should tell this process of its id changes.
func processEvents(t *testing.T) bool {
	var major, minor int
	fmt.Sscanf(features.Kernel(), "%d.%d", &major, &minor)
	connector, err := os.ReadFile("/proc/net/connector") // is there in the initial network namespace alone
	if err != nil {
		t.Log(err)
	}
	// The initial ones have fixed numbers (PROC_PID_INIT_INO, PROC_USER_INIT_INO).
	pid, _ := os.Readlink("/proc/self/ns/pid")
	user, _ := os.Readlink("/proc/self/ns/user")
	return major*1000+minor >= 6006 && strings.Contains(string(connector), "cn_proc") && pid == "pid:[4026531836]" && user == "user:[4026531837]"
}

// catches reports whether this process has a handler for a signal.
func catches(t *testing.T, signal int) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if set, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return bits&(1<<(signal-1)) != 0
		}
	}
	return false
}
