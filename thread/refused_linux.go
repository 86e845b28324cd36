package thread

import "runtime"

// tryCalls makes the calls of the handler with what a thread has already. They are refused where a user namespace denies setgroups(2), or
// by a seccomp filter; then the handler would end the process, and a scope that needs no such call to be entered gets it there.
func tryCalls() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var now credentials
	if err := now.read(); err != nil {
		return err
	}
	if !holdsSwitching(now.caps.Effective) {
		return nil // this process is never anybody else
	}
	if err := setGroups(now.groups); err != nil {
		return err
	}
	if err := onlyEffective(now.gids.effective).setGIDs(); err != nil {
		return err
	}
	if err := onlyEffective(now.uids.effective).setUIDs(); err != nil {
		return err
	}
	return setCapabilities(now.caps)
}
