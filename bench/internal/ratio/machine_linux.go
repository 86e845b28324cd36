package ratio

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Machine says what is measured on.
func Machine() string {
	release := "of an unknown release"
	var kernel unix.Utsname
	if unix.Uname(&kernel) == nil {
		release = unix.ByteSliceToString(kernel.Release[:])
	}
	return fmt.Sprintf("Linux %s, %s, %d CPUs", release, runtime.Version(), runtime.NumCPU())
}
