// Package features says which facilities are there that guise uses, what works without them, and which Linux has them.
package features

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/procevents"
	"github.com/guise-project/guise/thread"
)

// ErrNotSupported is what the error of a missing feature wraps.
var ErrNotSupported = errors.New("not supported by this kernel")

// ErrNotHere is what the error of a missing feature wraps that takes more than a kernel: see [Feature].Takes.
var ErrNotHere = errors.New("not to be had in this process")

// Feature is a facility that guise uses: of the kernel, or of a process on it.
type Feature struct {
	// Name is what the kernel calls it.
	Name string
	// Since is the first Linux that has it, "" where that is not what it depends on.
	Since string
	// Takes is what it takes besides that, "" if nothing.
	Takes string
	// Use is what guise does with it.
	Use string
	// Without is what is different where it is missing.
	Without string

	probe func() error
}

// The features, in the order of the Linux versions that brought them, then what depends on the process alone.
var (
	PeerGroups = define("SO_PEERGROUPS", "4.13",
		"the supplementary groups of a client",
		"no client's context is known: guise does not work",
		probePeerGroups)
	PeerPIDFD = define("SO_PEERPIDFD", "6.5",
		"the process of a client, for proving its changes and for looking at a root client",
		"tracking is static; root clients are not acted for",
		func() error { _, err := peerPidfd(); return err })
	ProcessEvents = defineHere("process connector", "6.6", "the initial network, pid and user namespaces",
		"noticing at once that this process has changed its ids, for servers that follow it",
		"a client's own id changes are noticed by a look every 10 ms, and before each write",
		procevents.Available)
	Pidfs = define("pidfs", "6.9",
		"telling one process from a later one with the same number",
		"tracking is static",
		probePidfs)
	PassRights = define("SO_PASSRIGHTS", "6.16",
		"keeping clients from sending descriptors that nobody asked for",
		"a reader may have to wait while a client's descriptor is closed",
		probePassRights)
	// ScopesFollow is asked for in this process: the answer is that of [guise.CanFollow], which takes signal 34.
	ScopesFollow = defineHere("following in scopes", "", "signal 34, amd64 or arm64, no musl, setgroups(2) and its kin, and uid and gid 4294967293 mapped",
		"having scopes in progress follow their clients",
		"scopes follow at the next entry",
		func() error {
			nobody, err := thread.Nobody(0)
			if err != nil {
				return err
			}
			return thread.CanFollow(nobody)
		})
)

// All returns every feature.
func All() []*Feature {
	return []*Feature{PeerGroups, PeerPIDFD, ProcessEvents, Pidfs, PassRights, ScopesFollow}
}

// DynamicTracking returns nil if this kernel can prove a client's changes, and otherwise the error of the feature that is
// missing.
func DynamicTracking() error {
	if err := PeerPIDFD.Err(); err != nil {
		return err
	}
	return Pidfs.Err()
}

func define(name, since, use, without string, probe func() error) *Feature {
	return &Feature{Name: name, Since: since, Use: use, Without: without, probe: sync.OnceValue(probe)}
}

// defineHere defines a feature that takes more than a kernel.
func defineHere(name, since, takes, use, without string, probe func() error) *Feature {
	f := define(name, since, use, without, probe)
	f.Takes = takes
	return f
}

// Err returns nil if the feature is there. Otherwise the error wraps [ErrNotSupported] and names the Linux that has it, or
// [ErrNotHere] and says what it takes; if the probe itself failed, for want of descriptors for instance, it wraps what the kernel
// said. The answer is kept.
func (f *Feature) Err() error {
	err := f.probe()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOBUFS):
		return fmt.Errorf("%s: probing for it: %w", f.Name, err)
	case f.Takes != "":
		takes := f.Takes
		if f.Since != "" {
			takes = "Linux " + f.Since + ", " + takes
		}
		return fmt.Errorf("%s: %w: %w (it takes %s)", f.Name, ErrNotHere, err, takes)
	case errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.ENOSYS), errors.Is(err, ErrNotSupported):
		return fmt.Errorf("%s: %w: it takes Linux %s", f.Name, ErrNotSupported, f.Since)
	}
	return fmt.Errorf("%s: probing for it: %w", f.Name, err)
}

// onPair calls f with one end of a socketpair.
func onPair(f func(fd int) error) error {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	return f(p[0])
}

func probePeerGroups() error {
	return onPair(func(fd int) error {
		_, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS)
		if err == unix.ERANGE { // more groups than a string's buffer holds
			return nil
		}
		return err
	})
}

// peerPidfd returns whether a pidfd of this process, got from a socket, is of pidfs.
func peerPidfd() (isPidfs bool, err error) {
	err = onPair(func(fd int) error {
		pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		if err != nil {
			return err
		}
		defer unix.Close(pidfd)
		var fs unix.Statfs_t
		if err := unix.Fstatfs(pidfd, &fs); err != nil {
			return err
		}
		isPidfs = fs.Type == unix.PID_FS_MAGIC
		return nil
	})
	return isPidfs, err
}

func probePidfs() error {
	isPidfs, err := peerPidfd()
	if err == nil && !isPidfs {
		err = ErrNotSupported
	}
	return err
}

func probePassRights() error {
	return onPair(func(fd int) error {
		_, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS)
		return err
	})
}

// Kernel returns the release of the running kernel, for reports.
func Kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return string(b[:len(b)-1])
}
