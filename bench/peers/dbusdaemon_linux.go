package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// dbusDaemonSocket is where the daemon listens, in the stage's directory. The directory that it is in is the daemon's own, which makes it.
const dbusDaemonSocket = "dbus-daemon/bus"

// dbusDaemonConfig has the daemon listen at an address, in which nothing is left that XML would have escaped. It lets everybody call and
// nobody but root be the server, names no services to start and includes no other files.
const dbusDaemonConfig = `<busconfig>
  <listen>%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
  <policy user="root">
    <allow own="` + busName + `"/>
  </policy>
</busconfig>
`

// startDBusDaemon starts the reference implementation's bus.
func startDBusDaemon(s *stage) (end func(), err error) {
	socket := filepath.Join(s.dir, dbusDaemonSocket)
	dir := filepath.Dir(socket)
	config := filepath.Join(dir, "config")
	ends := endings{func() { os.RemoveAll(dir) }}
	defer func() {
		if err != nil {
			ends.run()
		}
	}()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, fmt.Appendf(nil, dbusDaemonConfig, busAddress(socket)), 0o644); err != nil {
		return nil, err
	}
	for _, path := range []string{config, dir} {
		if err := os.Chown(path, int(asBus.Uid), int(asBus.Gid)); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil { // a umask may have kept clients out
		return nil, err
	}
	// It prints its address once it listens.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	kill, err := startBus("dbus-daemon", []string{"--config-file=" + config, "--nofork", "--nopidfile", "--nosyslog", "--print-address=3"}, w)
	w.Close()
	if err != nil {
		return nil, err
	}
	ends = append(ends, kill)
	if err := r.SetReadDeadline(time.Now().Add(busStart)); err != nil {
		return nil, err
	}
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("waiting for dbus-daemon to listen on %s: %w", socket, err)
	}
	return ends.run, nil
}
