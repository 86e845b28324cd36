package main

import (
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// manager is the service manager that started this process, such as systemd, if it wants to be told (sd_notify(3)).
type manager struct {
	status  fmt.Stringer
	endTime time.Duration // how long the end can take
	log     *slog.Logger
	absent  bool
	sending chan struct{} // holds one while a message is under way
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
func startManager(status fmt.Stringer, endTime time.Duration, log *slog.Logger) *manager {
	m := &manager{status: status, endTime: endTime, log: log, sending: make(chan struct{}, 1), news: make(chan struct{}, 1), ending: make(chan struct{})}
	sent, err := m.send(m.message(ready))
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
		// The manager's own idea of how long that may take (TimeoutStopSec=) need not be that of --grace.
		extend := "\nEXTEND_TIMEOUT_USEC=" + strconv.FormatInt((m.endTime+spareTime).Microseconds(), 10)
		return daemon.SdNotifyStopping + extend + "\nSTATUS=ending, " + m.status.String()
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
	_, _ = m.send(m.message(s)) // who does not listen can't be told that either
}

// managerTime is how long a manager may take for taking a message in. One that hangs must not keep the server from ending.
const managerTime = time.Second

// send sends a message, and reports whether there is a manager. What can't be sent in time is lost, unless it is taken in later.
func (m *manager) send(message string) (bool, error) {
	late := time.NewTimer(managerTime)
	defer late.Stop()
	select {
	case m.sending <- struct{}{}:
	case <-late.C:
		return true, errManagerHangs
	}
	type result struct {
		sent bool
		err  error
	}
	done := make(chan result, 1)
	go func() {
		sent, err := daemon.SdNotify(false, message)
		<-m.sending
		done <- result{sent, err}
	}()
	select {
	case r := <-done:
		return r.sent, r.err
	case <-late.C:
		return true, errManagerHangs
	}
}

var errManagerHangs = fmt.Errorf("it takes in nothing for %v", managerTime)

// changed says that the status is another one. It waits for nobody.
func (m *manager) changed() {
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// spareTime is what a busy machine may take for the end on top.
const spareTime = 5 * time.Second

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
	_, _ = m.send("STATUS=" + status)
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
