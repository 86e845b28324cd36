package secondstage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/internal/secureexec"
	"github.com/guise-project/guise/token"
)

// The exit statuses of a second stage that failed, as env(1) has them.
const (
	StatusFailed   = 125 // it could not become who it was to become
	StatusNotRun   = 126 // the program is there and could not be run
	StatusNotFound = 127 // there is no such program
)

func init() {
	if len(os.Args) == 0 || os.Args[0] != Argument0 {
		return
	}
	runtime.LockOSThread()
	status, err := run()
	fmt.Fprintf(os.Stderr, "guise: %v\n", err)
	os.Exit(status)
}

// run returns only if it failed.
func run() (status int, err error) {
	if secureexec.Is() {
		return StatusFailed, errors.New("an executable that is set-user-ID or has file capabilities can't start programs as its clients; give the service ambient capabilities instead (AmbientCapabilities= of systemd)")
	}
	o, err := parse(os.Args)
	if err != nil {
		return StatusFailed, err
	}
	if err := become(o); err != nil {
		return StatusFailed, fmt.Errorf("becoming uid %d to run %s: %w", o.UID, o.Name, err)
	}
	if o.Dir != "" {
		if err := os.Chdir(o.Dir); err != nil {
			return StatusFailed, fmt.Errorf("uid %d: %w", o.UID, err)
		}
	}
	env := unwrap(os.Environ())
	os.Setenv("PATH", pathOf(env))
	path, err := exec.LookPath(o.Name)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return notRun(err), fmt.Errorf("uid %d: %w", o.UID, err)
	}
	err = syscall.Exec(path, o.Args, env)
	return notRun(err), fmt.Errorf("uid %d: running %s: %w", o.UID, path, err)
}

func pathOf(env []string) string {
	path := ""
	for _, variable := range env {
		if value, ok := strings.CutPrefix(variable, "PATH="); ok {
			path = value // the last one counts, as for os/exec
		}
	}
	return path
}

func notRun(err error) (status int) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return StatusNotFound
	}
	return StatusNotRun
}

// become drops everything that is not the order's. The exec that follows ends the process's other threads, so this one is
// all that counts.
func become(o Order) error {
	if _, err := unix.Setsid(); err != nil && err != unix.EPERM { // EPERM: it leads a session already
		return fmt.Errorf("setsid: %w", err)
	}
	had, e := capability.Get()
	if e != 0 {
		return fmt.Errorf("capget: %w", e)
	}
	raised := had
	raised.Effective = raised.Permitted
	if e := raised.Set(); e != 0 {
		return fmt.Errorf("raising the effective capabilities: %w", e)
	}
	if err := dropBounding(o, raised.Effective.Has(token.CapSetpcap)); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && err != unix.EINVAL {
		return fmt.Errorf("clearing the ambient capabilities: %w", err)
	}
	if err := setIDs(o); err != nil {
		return err
	}
	wanted := capability.Sets{Effective: o.Capabilities.Effective & had.Permitted, Permitted: o.Capabilities.Permitted & had.Permitted}
	if o.UID != 0 {
		wanted = capability.Sets{}
	}
	if e := wanted.Set(); e != 0 {
		return fmt.Errorf("dropping capabilities: %w", e)
	}
	if err := leaveKeyring(); err != nil {
		return err
	}
	return verify(o, wanted)
}

// dropBounding leaves in the bounding set what the program may have, so that no set-user-ID program brings more back. Without
// CAP_SETPCAP it can't be done; uid 0, which executing gives all of the set, is refused then.
func dropBounding(o Order, can bool) error {
	keep := token.CapSet(0)
	if o.UID == 0 {
		keep = o.Capabilities.Permitted
	}
	for n := range 64 {
		if keep.Has(n) {
			continue
		}
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		if err == unix.EINVAL { // beyond the last that this kernel has
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the capability bounding set: %w", err)
		}
		if has == 0 {
			continue
		}
		if !can {
			if o.UID == 0 {
				return errors.New("a program can be given less than all of root's capabilities only with CAP_SETPCAP")
			}
			return nil
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
			return fmt.Errorf("dropping capability %d from the bounding set: %w", n, err)
		}
	}
	return nil
}

func setIDs(o Order) error {
	if same, err := hasIDs(o); err != nil || same {
		return err
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(o.Groups)), uintptr(unsafe.Pointer(unsafe.SliceData(o.Groups))), 0); e != 0 {
		return fmt.Errorf("setgroups: %w", e)
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SETRESGID, uintptr(o.GID), uintptr(o.GID), uintptr(o.GID)); e != 0 {
		return fmt.Errorf("setresgid: %w", e)
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(o.UID), uintptr(o.UID), uintptr(o.UID)); e != 0 {
		return fmt.Errorf("setresuid: %w", e)
	}
	return nil
}

// hasIDs reports whether this thread has all of the order's ids and groups already, so that a service without privilege can
// start programs as itself.
func hasIDs(o Order) (bool, error) {
	groups, err := unix.Getgroups()
	if err != nil {
		return false, fmt.Errorf("getgroups: %w", err)
	}
	same := slices.EqualFunc(groups, o.Groups, func(a int, b uint32) bool { return uint32(a) == b })
	are := func(id uint32, r, e, s int) bool { return uint32(r) == id && uint32(e) == id && uint32(s) == id }
	ru, eu, su := unix.Getresuid()
	rg, eg, sg := unix.Getresgid()
	return same && are(o.UID, ru, eu, su) && are(o.GID, rg, eg, sg), nil
}

// leaveKeyring replaces the server's session keyring, whose keys would be the program's too.
func leaveKeyring() error {
	_, _, e := syscall.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if e == 0 || e == unix.ENOSYS {
		return nil
	}
	// A container's system call filter may forbid keyrings altogether; then there is none to reach either.
	if _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); err == e {
		return nil
	}
	return fmt.Errorf("leaving the session keyring: %w", e)
}

func verify(o Order, wanted capability.Sets) error {
	same, err := hasIDs(o)
	if err != nil {
		return err
	}
	now, e := capability.Get()
	if e != 0 {
		return fmt.Errorf("capget: %w", e)
	}
	if !same || now != wanted {
		return fmt.Errorf("the kernel shows other ids or capabilities than were set: %+v", now)
	}
	return nil
}
