package main

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// manager is the service manager that started this process, such as systemd, if it wants to be told (sd_notify(3)).
type manager struct {
	status  fmt.Stringer
	log     *slog.Logger
	absent  bool
	news    chan struct{} // the status has changed
	ending  chan struct{}
	ended   sync.WaitGroup
	mu      sync.Mutex // one message at a time
	leaving bool       // stopping was told: ready would take it back
}

// state is what a manager is told.
type state int

const (
	ready state = iota
	reloading
	stopping
	alive
)

// startManager tells that clients can come.
func startManager(status fmt.Stringer, log *slog.Logger) *manager {
	m := &manager{status: status, log: log, news: make(chan struct{}, 1), ending: make(chan struct{})}
	sent, err := daemon.SdNotify(false, m.message(ready))
	if err != nil {
		log.Warn("the service manager was not told that clients can come", "error", err)
	}
	if m.absent = !sent; m.absent {
		return m
	}
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog will hear nothing", "error", err)
	}
	m.ended.Go(func() { m.run(interval / 2) })
	return m
}

func (m *manager) message(s state) string {
	status := "STATUS=" + m.status.String()
	switch s {
	case reloading:
		return daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec() + "STATUS=reloading"
	case stopping:
		return daemon.SdNotifyStopping + "\nSTATUS=ending, " + m.status.String()
	case alive:
		return daemon.SdNotifyWatchdog
	}
	return daemon.SdNotifyReady + "\n" + status
}

func (m *manager) tell(s state) {
	if m.absent {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leaving && s != alive {
		return
	}
	m.leaving = m.leaving || s == stopping
	m.send(m.message(s))
}

// send sends a message. What can't be sent is lost: who does not listen can't be told that either.
func (m *manager) send(message string) { _, _ = daemon.SdNotify(false, message) }

// changed says that the status is another one. It waits for nobody.
func (m *manager) changed() {
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// betweenStatus is how long the manager is left alone after it was told a status.
const betweenStatus = time.Second

// run tells what changes, and the watchdog that this process is alive, until stop is called.
func (m *manager) run(watchdog time.Duration) {
	var bark <-chan time.Time
	if watchdog > 0 {
		ticker := time.NewTicker(watchdog)
		defer ticker.Stop()
		bark = ticker.C
	}
	news := m.news
	var rested <-chan time.Time
	for {
		select {
		case <-news:
			m.tellStatus()
			news, rested = nil, time.After(betweenStatus)
		case <-rested:
			news = m.news
		case <-bark:
			m.tellAlive()
		case <-m.ending:
			return
		}
	}
}

func (m *manager) tellStatus() {
	m.mu.Lock()
	defer m.mu.Unlock()
	status := m.status.String()
	if m.leaving {
		status = "ending, " + status
	}
	m.send("STATUS=" + status)
}

// tellAlive tells the watchdog, if every thread can be stopped for a moment. One that hangs in the kernel as Go
// does not expect it would hold up the collector, and so everything.
func (m *manager) tellAlive() {
	var statistics runtime.MemStats
	runtime.ReadMemStats(&statistics)
	m.tell(alive)
}

func (m *manager) stop() {
	close(m.ending)
	m.ended.Wait()
}
