package ratio

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Pin confines this thread, and so every process that it starts, to the last CPU that it may use. The thread stays locked.
func Pin() (cpu int, err error) {
	runtime.LockOSThread()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, err
	}
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			cpu = i
		}
	}
	set.Zero()
	set.Set(cpu)
	return cpu, unix.SchedSetaffinity(0, &set)
}
