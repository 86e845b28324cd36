package main

import (
	"os"
	"os/signal"

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

// reload looks the groups up again.
func (s *server) reload(listener *guise.Listener) {
	s.manager.tell(reloading)
	defer s.manager.tell(ready)
	err := s.access.lookUp()
	if err == nil && s.access.group != "" && !s.handedOver {
		err = s.setGroup(addressText(listener.Addr()))
	}
	if err != nil {
		s.log.Error("not reloaded: all stays as it was", "error", err)
		return
	}
	s.log.Info("reloaded")
}

// setGroup gives the socket's file its group.
func (s *server) setGroup(path string) error {
	gid, err := groupID(s.access.group)
	if err != nil {
		return err
	}
	var now unix.Stat_t
	if err := unix.Lstat(path, &now); err != nil || now.Gid == gid {
		return err
	}
	return os.Lchown(path, -1, int(gid))
}
