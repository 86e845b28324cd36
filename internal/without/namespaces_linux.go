package without

import (
	"os/exec"
	"syscall"
)

// Namespaces returns why this machine lets nobody make the namespaces that flags ask for, such as in a container or under
// chroot(2), and nil if it does.
func Namespaces(flags uintptr) error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	return cmd.Run()
}
