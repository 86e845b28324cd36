package guise

import (
	"bytes"
	"cmp"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// watcher is one who watches, and the goroutine that writes to it.
type watcher struct {
	observers *observers
	conn      *net.UnixConn
	queue     chan happening
	queued    atomic.Int64 // bytes
	missed    uint64       // since the queue was full; guarded by observers.mu
	left      chan struct{}

	// Of the goroutine that writes.
	buffer bytes.Buffer
	began  time.Time // the last telling of all that is there
	window time.Time // worded counts since then
	worded int
	told   map[uint64]uint64
	until  uint64 // told has no later events
}

const (
	mostWatchers = 16
	// watchQueue is how many events may wait for a watcher.
	watchQueue = 1024
	// watchQueueBytes is how many bytes they may take: a context can have 65536 groups.
	watchQueueBytes = 4 << 20
	// watchLines is how many bytes of lines are put together before they are sent, and watchLine of an event count as one more.
	watchLines, watchLine = 64 << 10, 4 << 10
	// watchBurst is how many events are told at once in an interval of watchPace, and then no more but what is queued: a watcher
	// must not take the clients' time.
	watchBurst = 64
	watchPace  = 20 * time.Millisecond
	// watchAgain is the time between two tellings of all that is there.
	watchAgain = time.Second
)

// watch has somebody watch until they leave or the listener is closed. It takes conn over.
func (o *observers) watch(conn *net.UnixConn) {
	w := &watcher{observers: o, conn: conn, queue: make(chan happening, watchQueue), left: make(chan struct{})}
	o.mu.Lock()
	closed := o.closed
	admitted := !closed && o.admitted < mostWatchers
	if admitted {
		o.admitted++
		o.running.Add(1)
	}
	o.mu.Unlock()
	if !admitted {
		last := &WatchEvent{Kind: WatchEnded, Time: time.Now()}
		if !closed {
			last.Error = "as many watch it as may at once"
		}
		line(&w.buffer, last)
		w.conn.SetWriteDeadline(time.Now().Add(lastWrite))
		_ = w.flush() // it is the first that is written there: there is room
		closePipe(conn, o.uid, false)
		return
	}
	go w.run()
	go w.listen()
}

// listen waits for the watcher to leave.
func (w *watcher) listen() {
	_, _ = w.conn.Read(make([]byte, 1)) // nothing is to come
	close(w.left)
	w.conn.SetWriteDeadline(time.Unix(1, 0))
}

// run tells the watcher what happens.
func (w *watcher) run() {
	o := w.observers
	defer o.running.Done()
	defer w.leave()
	first := &WatchEvent{Kind: WatchBegun, Version: watchVersion, Server: &o.server}
	if w.tellAll(first) != nil {
		return
	}
	for {
		select {
		case h := <-w.queue:
			if w.tell(h) != nil {
				return
			}
		case <-w.left:
			return
		case <-o.closing:
			w.end()
			return
		}
	}
}

// rest waits, and reports whether there is anything to go on for.
func (w *watcher) rest(pause time.Duration) bool {
	select {
	case <-w.left:
		return false
	case <-w.observers.closing:
		return false
	case <-time.After(pause):
		return true
	}
}

// tell tells of h and of what else is queued; and of everything if something was missed.
func (w *watcher) tell(h happening) error {
	if now := time.Now(); now.Sub(w.window) >= watchPace {
		w.window, w.worded = now, 0
	}
	if w.worded > watchBurst {
		w.rest(time.Until(w.window.Add(watchPace)))
	}
	w.word(h)
	if err := w.wordQueued(); err != nil {
		return err
	}
	o := w.observers
	o.mu.Lock()
	missed := w.missed > 0 && len(w.queue) == 0
	o.mu.Unlock()
	if missed && w.rest(time.Until(w.began.Add(watchAgain))) {
		return w.tellAll(&WatchEvent{Kind: WatchMissed})
	}
	return nil
}

// wordQueued puts what is queued into words, and sends them.
func (w *watcher) wordQueued() error {
	for range len(w.queue) {
		if w.buffer.Len() > watchLines {
			if err := w.flush(); err != nil {
				return err
			}
		}
		w.word(<-w.queue)
	}
	return w.flush()
}

// word puts an event into words, unless what has been told already is later.
func (w *watcher) word(h happening) {
	w.queued.Add(-int64(h.bytes))
	w.worded += 1 + h.bytes/watchLine
	if h.number > w.until {
		w.told = nil
	}
	if h.number > w.told[h.connection.id] {
		line(&w.buffer, h.words())
	}
}

func (w *watcher) flush() error {
	defer w.buffer.Reset()
	_, err := w.conn.Write(w.buffer.Bytes())
	return err
}

// tellAll tells of all connections, after first.
func (w *watcher) tellAll(first *WatchEvent) error {
	o := w.observers
	w.began = time.Now()
	w.told = make(map[uint64]uint64)

	// From here on everything that happens is queued, so between this and the queue nothing is left out.
	o.mu.Lock()
	if _, begun := o.watchers[w]; !begun {
		o.watchers[w] = struct{}{}
		o.count.Add(1)
	}
	if o.closed { // close has not seen it
		w.conn.SetWriteDeadline(time.Now().Add(lastWrite))
	}
	first.Missed, w.missed = w.missed, 0
	ends := slices.Collect(maps.Keys(o.there))
	o.mu.Unlock()

	all := make([]happening, 0, len(ends))
	for _, s := range ends {
		locked := tryLockFor(&s.mu, tellWait)
		h := happening{kind: WatchThere, at: time.Now(), scopes: int(s.scopes.Load())}
		if locked { // or somebody is receiving from the client, who can have that wait
			h = s.happening(WatchThere)
		}
		o.mu.Lock()
		h.connection, h.number = o.there[s], o.happened
		o.mu.Unlock()
		if locked {
			s.mu.Unlock()
		}
		if h.connection != nil {
			all = append(all, h)
			w.told[h.connection.id] = h.number
			w.until = h.number
		}
	}
	slices.SortFunc(all, func(a, b happening) int { return cmp.Compare(a.connection.id, b.connection.id) })
	first.Time, first.Connections = w.began, len(all)
	line(&w.buffer, first)
	for _, h := range all {
		line(&w.buffer, h.words())
		if w.buffer.Len() > watchLines {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return w.flush()
}

// end tells what there is still, and that the listener was closed.
func (w *watcher) end() {
	select {
	case <-w.left:
		return
	default:
	}
	o := w.observers
	o.mu.Lock()
	connections := len(o.there)
	o.mu.Unlock()
	if w.wordQueued() != nil {
		return
	}
	line(&w.buffer, &WatchEvent{Kind: WatchEnded, Time: time.Now(), Connections: connections})
	_ = w.flush()
}

func (w *watcher) leave() {
	o := w.observers
	o.mu.Lock()
	if _, begun := o.watchers[w]; begun {
		delete(o.watchers, w)
		o.count.Add(-1)
	}
	o.admitted--
	o.mu.Unlock()
	closePipe(w.conn, o.uid, false)
}

// tellWait is how long who begins to watch waits for who is at a connection.
const tellWait = 20 * time.Millisecond

// tryLockFor locks mu, and reports false if that takes longer.
func tryLockFor(mu *sync.Mutex, long time.Duration) bool {
	for begun := time.Now(); !mu.TryLock(); time.Sleep(time.Millisecond) {
		if time.Since(begun) > long {
			return false
		}
	}
	return true
}
