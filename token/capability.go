package token

import (
	"fmt"
	"math/bits"
	"strings"
)

// CapSet is a set of Linux capabilities; bit n is capability n of capabilities(7).
type CapSet uint64

// The capabilities that this library itself asks about.
const (
	CapKill    = 5
	CapSetgid  = 6
	CapSetuid  = 7
	CapSetpcap = 8
)

// AllCaps has every capability that there is or will be.
const AllCaps = ^CapSet(0)

var capNames = [...]string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
	"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
	"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
	"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
	"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
	"checkpoint_restore",
}

// knownCaps has the capabilities that this package can name.
const knownCaps = CapSet(1)<<len(capNames) - 1

// Has reports whether capability n is in the set.
func (s CapSet) Has(n int) bool { return s&(1<<n) != 0 }

// String lists the set as capability names without their prefix, or what is missing where that is less; "none" if it is
// empty, and "all" if it has every capability this package knows.
func (s CapSet) String() string {
	switch {
	case s == 0:
		return "none"
	case s&knownCaps == knownCaps:
		return "all"
	}
	if missing := knownCaps &^ s; bits.OnesCount64(uint64(missing)) < len(capNames)/2 {
		return "all but " + missing.names()
	}
	return s.names()
}

func (s CapSet) names() string {
	var names []string
	for n := range 64 {
		if !s.Has(n) {
			continue
		}
		if n < len(capNames) {
			names = append(names, capNames[n])
		} else {
			names = append(names, fmt.Sprint(n))
		}
	}
	return strings.Join(names, ",")
}

// MarshalText returns what String does.
func (s CapSet) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
