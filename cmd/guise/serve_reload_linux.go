package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
)

// hangUps returns where SIGHUP, which means to reload, arrives. Of a server on a terminal it ends by end, since that is what
// the terminal's hanging up means there. A server that was started with nohup ignores it.
func hangUps(end func()) chan os.Signal {
	c := make(chan os.Signal, 1)
	if signal.Ignored(unix.SIGHUP) {
		return c
	}
	signal.Notify(c, unix.SIGHUP)
	if !onTerminal() {
		return c
	}
	go func() {
		<-c
		end()
	}()
	return make(chan os.Signal)
}

// onTerminal reports whether this process has a controlling terminal.
func onTerminal() bool {
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(tty)
	return true
}

// startReloading calls reload at each signal, one after the other, until stop is called.
func startReloading(signals <-chan os.Signal, reload func()) (stop func()) {
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-signals:
				reload()
			case <-stopping:
				return
			}
		}
	}()
	return func() {
		close(stopping)
		<-stopped
	}
}

// reload looks the groups up again. If one of them is not there, or the socket can't have its own, all stays as it was.
func (s *server) reload(listener *guise.Listener) {
	s.manager.tell(reloading)
	defer s.manager.tell(ready)
	groups, err := s.access.lookUp()
	if err == nil && s.access.group != "" && !s.handedOver {
		err = s.setGroup(addressText(listener.Addr()), groups.socket)
	}
	if err != nil {
		s.log.Error("not reloaded: all stays as it was", "error", err)
		return
	}
	s.access.use(groups)
	s.log.Info("reloaded")
}

// setGroup gives the socket's file its group.
func (s *server) setGroup(path string, gid uint32) error {
	now, err := os.Lstat(path)
	if err == nil && !os.SameFile(now, s.socket) {
		err = errors.New("it is not this server's any more, which no client finds: start the server again")
	}
	if err == nil && now.Sys().(*syscall.Stat_t).Gid != gid {
		err = os.Lchown(path, -1, int(gid))
	}
	if err != nil {
		return fmt.Errorf("giving the socket %s the group %d (--group): %w", path, gid, err)
	}
	return nil
}
