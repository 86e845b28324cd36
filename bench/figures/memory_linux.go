package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
)

const (
	idleConnections = 5000
	// Connections that come and go before the first look, so that code and tables that the first ones need don't count.
	earlyConnections = 64
	memoryRounds     = 15
)

// measureMemory compares what an accepted connection costs a server, in fresh processes.
func measureMemory(dir string) (ratio.Row, error) {
	sides := map[string][]float64{}
	for round := range memoryRounds {
		kinds := []string{"guise", "net"}
		if round%2 == 1 {
			kinds[0], kinds[1] = kinds[1], kinds[0]
		}
		for _, kind := range kinds {
			bytes, err := memoryOf(kind, filepath.Join(dir, fmt.Sprintf("%s%d", kind, round)))
			if err != nil {
				return ratio.Row{}, err
			}
			sides[kind] = append(sides[kind], bytes)
		}
	}
	return ratio.Compare("resident memory per idle accepted connection : net.UnixConn", 1.25, sides["guise"], sides["net"], "bytes"), nil
}

// memoryOf returns the resident bytes of one server per connection.
func memoryOf(kind, path string) (float64, error) {
	server, err := role.Start(nil, nil, "memory-server", kind, path)
	if err != nil {
		return 0, err
	}
	defer server.Stop()
	if _, err := server.Line(); err != nil { // it listens
		return 0, err
	}
	client, err := role.Start(nil, nil, "memory-client", path)
	if err != nil {
		return 0, err
	}
	defer client.Stop()
	line, err := server.Line()
	if err != nil {
		return 0, err
	}
	bytes, err := strconv.ParseFloat(line, 64)
	return bytes / idleConnections, err
}

// serveIdle is the role of the server that is measured: it accepts, reads nothing, and prints by how much its resident memory
// grew.
func serveIdle(args []string) error {
	kind, path := args[0], args[1]
	var l net.Listener
	var err error
	if kind == "guise" {
		l, err = guise.Listen(path, nil)
	} else {
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("listening")
	return hold(idleConnections, earlyConnections, func() (io.Closer, error) { return l.Accept() }, func() error { return nil })
}

// connectIdle is the role of the plain clients: connections that say nothing.
func connectIdle(args []string) error {
	address := &unix.SockaddrUnix{Name: args[0]}
	for i := range earlyConnections + idleConnections {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Connect(fd, address); err != nil {
			return err
		}
		if i < earlyConnections {
			unix.Close(fd)
		}
	}
	role.AwaitEnd()
	return nil
}

// residentBytes returns this process's resident memory once all that is garbage has gone back to the system.
func residentBytes() (int64, error) {
	for range 3 {
		runtime.GC()
		debug.FreeOSMemory()
	}
	return residentBytesOf(os.Getpid())
}

func residentBytesOf(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "Rss:"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, io.ErrUnexpectedEOF
}
