package machines

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// namespaces are what a machine has of its own. unshare makes every mount private, and its child, the machine's init, ends with
// it.
var namespaces = []string{"--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child"}

// holder is a process that keeps something alive until its standard input ends: that is when the holder is told to end, or when
// this process, which has the only other end, is gone, however it went. Holders have sessions of their own, so that
// Ctrl-C at a terminal ends them no earlier than this process.
type holder struct {
	what string
	cmd  *exec.Cmd
	pid  int // of what is held: /proc/PID is the way in
	hold *os.File
	said bytes.Buffer
	out  *bufio.Reader
}

// startHolder starts a program as a holder. It has the files from descriptor 3 on.
func startHolder(what string, files []*os.File, name string, args ...string) (*holder, error) {
	h := &holder{what: what, cmd: outside(name, args...)}
	stdin, hold, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe to hold %s: %w", what, err)
	}
	defer stdin.Close()
	h.cmd.Stdin, h.cmd.Stderr, h.cmd.ExtraFiles = stdin, &h.said, files
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdout, err := h.cmd.StdoutPipe()
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		hold.Close()
		return nil, fmt.Errorf("starting %s to hold %s: %w", name, what, err)
	}
	h.pid, h.hold, h.out = h.cmd.Process.Pid, hold, bufio.NewReader(stdout)
	return h, nil
}

// ready waits until the holder says that it is ready. If it ends instead, the error has what it said.
func (h *holder) ready() error {
	late := time.AfterFunc(patience, func() { h.cmd.Process.Kill() })
	defer late.Stop()
	for {
		line, err := h.out.ReadString('\n')
		if err != nil {
			ended := h.end()
			if ended == nil && err != io.EOF {
				ended = err
			}
			return fmt.Errorf("%s could not be made: %w", h.what, errors.Join(ended, errors.New(strings.TrimSpace(h.said.String()))))
		}
		line = strings.TrimSpace(line)
		if pid, ok := strings.CutPrefix(line, "pid "); ok {
			if h.pid, err = strconv.Atoi(pid); err != nil {
				h.end()
				return fmt.Errorf("%s has the process id %q, which is none", h.what, pid)
			}
		}
		if line == "ready" {
			return nil
		}
	}
}

// patience is how long anything may take that ought to take no time.
const patience = 15 * time.Second

// end lets go of what is held and waits until it is gone.
func (h *holder) end() error {
	if h == nil || h.hold == nil {
		return nil
	}
	h.hold.Close()
	h.hold = nil
	killed := time.AfterFunc(patience, func() { h.cmd.Process.Kill() })
	err := h.cmd.Wait()
	if !killed.Stop() {
		return fmt.Errorf("%s did not end within %v and was killed: %w", h.what, patience, err)
	}
	if err != nil {
		return fmt.Errorf("%s ended with %w", h.what, err)
	}
	return nil
}

// startKeeper starts the holder of a directory: it removes it when the last of those that hold the returned file is gone, which
// are this process and the machines. So no file is left when this process is killed, and none is removed under a machine.
func startKeeper(dir string) (*holder, error) {
	const script = `trap '' HUP INT QUIT TERM
echo ready
read -r nothing
exec rm -rf --one-file-system -- "$1"`
	h, err := startHolder("directory "+dir, nil, "/bin/sh", "-c", script, "guise-keeper", dir)
	if err != nil {
		return nil, err
	}
	return h, h.ready()
}

// startSwitch starts the holder of a network namespace in which the machines' cables end.
func startSwitch() (*holder, error) {
	const script = `set -e
ip link add name bridge0 type bridge forward_delay 0 mcast_snooping 0
ip link set bridge0 up
echo ready
exec cat`
	h, err := startHolder("the switch", nil, "unshare", "--net", "/bin/sh", "-c", script, "guise-switch")
	if err != nil {
		return nil, err
	}
	return h, h.ready()
}

// emptied are the directories that are empty in a new machine, and their modes.
const emptied = `/tmp 1777
/run 0755
/home 0755
/dev/shm 1777
/var/tmp 1777
/var/lib/samba 0755
/var/cache/samba 0755
/var/log/samba 0755
/var/lib/krb5kdc 0700
`

// machineScript is what a machine's init does. Its arguments are the machine's name, the directory that is visible inside and
// outside, and the one in that which is the machine's own.
//
// The process id is asked of the /proc from outside, so it is the one that outside has. /etc is copied to a tmpfs that is then moved in
// place, again if a file went away meanwhile. The common directory may lie in one that is hidden: so it is opened before. The last program ignores the end of the
// children that it inherits: then the kernel buries them.
const machineScript = `set -eu
umask 022
cd /
read -r pid rest </proc/self/stat
echo "pid $pid"
mount -t proc -o nosuid,nodev,noexec proc /proc
echo "$1" >/proc/sys/kernel/hostname
mount -t tmpfs -o mode=0755 etc "$3/etc"
cp -a /etc/. "$3/etc" || cp -a /etc/. "$3/etc"
mount --move "$3/etc" /etc
exec 9<"$2"
while read -r dir mode; do
	[ ! -d "$dir" ] || mount -t tmpfs -o "mode=$mode" guise "$dir"
done <<END
` + emptied + `END
mkdir -p "$2"
mount --no-canonicalize --bind /proc/self/fd/9 "$2"
exec 9<&-
ip link set lo up
echo ready
exec env --ignore-signal=CHLD cat`

// startMachine starts the holder of a machine, without waiting until it is ready. It keeps keeper open until the last process of
// the machine is gone: unshare has it, which waits for that.
func startMachine(name, dir, own string, keeper *os.File) (*holder, error) {
	args := append([]string{}, namespaces...)
	args = append(args, "/bin/sh", "-c", machineScript, "guise-machine", name, dir, own)
	return startHolder("machine "+name, []*os.File{keeper}, "unshare", args...)
}
