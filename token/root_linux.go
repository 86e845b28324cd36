package token

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

type rootLook struct {
	capabilities Capabilities
	obstacle     *obstacle
}

var errGone = errors.New("the process has gone")

// lookAtRoot looks at the process pid, which the peer of fd has to be from the first look to the last. It only ever takes
// something away: what can't be seen is not there.
func lookAtRoot(fd, pid int) rootLook {
	unseen := func(why error) rootLook {
		gone := errors.Is(why, errGone)
		if errors.Is(why, unix.ENOENT) || errors.Is(why, unix.ESRCH) {
			_, err := os.Stat("/proc/self/ns/user")
			gone = err == nil // and not just without /proc
		}
		return rootLook{obstacle: &obstacle{foreignRoot: true, gone: gone, reason: fmt.Sprintf("uid 0 whose namespaces can't be seen (%v)", why)}}
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		return unseen(fmt.Errorf("SO_PEERPIDFD: %w", err))
	}
	defer unix.Close(pidfd)

	var look rootLook
	sameUser, err := sameNamespace(pid, "user")
	if err != nil {
		return unseen(err)
	}
	sameMount, err := sameNamespace(pid, "mnt")
	if err != nil {
		return unseen(err)
	}
	switch {
	case !sameUser:
		look.obstacle = &obstacle{foreignRoot: true, reason: "uid 0 of another user namespace"}
	case !sameMount:
		look.obstacle = &obstacle{foreignRoot: true, reason: "uid 0 of another mount namespace"}
	}
	// Capabilities of another user namespace are none in this one, though /proc prints them alike.
	if sameUser {
		if look.capabilities, err = processCapabilities(pid); err != nil {
			look.capabilities = Capabilities{}
		}
	}
	if !Alive(pidfd) {
		return unseen(errGone)
	}
	return look
}

// Alive reports whether the process behind a pidfd has not yet ended. It fails closed.
func Alive(pidfd int) bool {
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			continue
		}
		return err == nil && n == 0
	}
}

func sameNamespace(pid int, kind string) (bool, error) {
	var theirs, ours unix.Stat_t
	path := "/proc/" + strconv.Itoa(pid) + "/ns/" + kind
	if err := unix.Stat(path, &theirs); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	if err := unix.Stat("/proc/self/ns/"+kind, &ours); err != nil {
		return false, fmt.Errorf("/proc/self/ns/%s: %w", kind, err)
	}
	return theirs.Dev == ours.Dev && theirs.Ino == ours.Ino, nil
}

// processCapabilities reads what proc(5) shows of the process's first thread.
func processCapabilities(pid int) (Capabilities, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return Capabilities{}, err
	}
	var c Capabilities
	found := 0
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":\t")
		var set *CapSet
		switch name {
		case "CapPrm":
			set = &c.Permitted
		case "CapEff":
			set = &c.Effective
		default:
			continue
		}
		bits, err := strconv.ParseUint(value, 16, 64)
		if err != nil {
			return Capabilities{}, fmt.Errorf("%s of process %d: %w", name, pid, err)
		}
		*set = CapSet(bits)
		found++
	}
	if found != 2 {
		return Capabilities{}, fmt.Errorf("no capabilities in the status of process %d", pid)
	}
	return c, nil
}
