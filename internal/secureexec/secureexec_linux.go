// Package secureexec says whether this program has more rights than whoever started it.
package secureexec

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Is reports whether the kernel marked the program so (AT_SECURE of getauxval(3)): a set-user-ID program or one with file
// capabilities, whose arguments and environment are somebody else's. It fails closed.
var Is = sync.OnceValue(func() bool {
	const atSecure = 23
	vector, err := unix.Auxv()
	if err != nil {
		return true
	}
	for _, entry := range vector {
		if entry[0] == atSecure {
			return entry[1] != 0
		}
	}
	return false
})
