package thread

import (
	"bytes"
	"os"
)

// loadsMusl reports whether this process has musl's C library in it. It takes signal 34 only at the moment when it needs it, so
// looking at the signal does not show it.
func loadsMusl() bool {
	maps, err := os.ReadFile("/proc/self/maps")
	return err == nil && bytes.Contains(maps, []byte("/ld-musl-"))
}
