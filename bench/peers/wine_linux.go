package main

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/role"
)

// overWine is what guise has its model from, as Wine does it: ImpersonateNamedPipeClient and RevertToSelf of a Win32 program. All Win32
// processes with one wineserver belong to one Unix user, here root, and what a thread acts as is known to the wineserver only. So acting
// changes no ids for the kernel: the file is opened, by the wineserver, as the user who started Wine.
var overWine = way{name: "Wine's named pipes", needs: []string{wine, wineserver, mingw}, start: startWine}

// Debian has the first of these out of the way: what is in its PATH belongs to a package that 64 bits don't need, and starts these.
var (
	wine       = firstOf("/usr/lib/wine/wine64", "wine64", "wine64-stable", "wine")
	wineserver = firstOf("/usr/lib/wine/wineserver", "wineserver", "wineserver64", "wineserver-stable")
)

const mingw = "x86_64-w64-mingw32-gcc"

// firstOf returns the first of programs that is here, and the last if none is.
func firstOf(programs ...string) string {
	for _, program := range programs {
		if _, err := exec.LookPath(program); err == nil {
			return program
		}
	}
	return programs[len(programs)-1]
}

//go:embed wine/pipe.c
var pipeC []byte

// wineScript is process 1 of a PID namespace: what Wine starts besides (the wineserver, services and more) ends when it does, whatever
// ends it. /tmp is the stage's directory, so that what Wine leaves in there goes with that.
//
// The prefix is Wine's machine. Making it takes seconds, so it stays for the next start; the wineserver writes the registry to files
// when it is told to end.
const wineScript = `
mount --bind "$1" /tmp
mount -t proc proc /proc
wine=$2 wineserver=$3 mingw=$4 file=$5 contents=$6
$mingw -O2 -o /tmp/pipe.exe /tmp/pipe.c
if ! test -e $WINEPREFIX/system.reg; then
	$wine wineboot --init </dev/null >/tmp/wineboot 2>&1 || { cat /tmp/wineboot >&2; exit 1; }
	$wineserver -k
fi
$wine /tmp/pipe.exe server </dev/null >/dev/null &
$wine /tmp/pipe.exe client "$file" "$contents"
`

func startWine(s *stage) (*running, error) {
	if err := os.WriteFile(filepath.Join(s.dir, "pipe.c"), pipeC, 0o644); err != nil {
		return nil, err
	}
	// The file has another name where the stage's directory is /tmp; Z: is the Unix root.
	script := func(...string) *exec.Cmd {
		cmd := exec.Command("sh", "-ec", wineScript, "sh", s.dir, wine, wineserver, mingw, fileOf("Z:/tmp"), string(contents))
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		// No DISPLAY. Wine is to offer neither menus, nor Mono and Gecko, and to say nothing.
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=/tmp", "TMPDIR=/tmp",
			"WINEPREFIX=/tmp/wine", "WINEARCH=win64", "WINEDEBUG=-all", "WINEDLLOVERRIDES=winemenubuilder.exe,mscoree,mshtml=",
		}
		return cmd
	}
	process, err := role.StartBy(script, nil, "client of Wine's named pipes")
	if err != nil {
		return nil, err
	}
	// Its standard input ends, so the client, so the script, so all there is in its namespace.
	p := &pair{client: process, ends: endings{func() { process.Stop() }}}
	if _, err := process.Line(); err != nil {
		return nil, fmt.Errorf("starting a server and a client of Wine's named pipes with %s: %w", wine, errors.Join(err, process.Stop()))
	}
	return &running{once: p.asking("once"), open: p.asking("open"), stop: p.ends.run}, nil
}
