package guise

import (
	"bytes"
	"encoding/json"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/socketfile"
	"github.com/guise-project/guise/token"
)

// observers are those who watch a listener's connections. A nil one has none. Nobody waits for them: what a watcher has no room for
// it misses. A serverEnd's mu is locked before mu.
type observers struct {
	server WatchedServer
	socket *net.UnixListener
	file   *socketfile.File
	uid    uint32 // whose processes may watch, besides root's
	log    func(msg string, args ...any)

	count    atomic.Int32 // of watchers
	closing  chan struct{}
	mu       sync.Mutex
	closed   bool
	admitted int                   // watchers
	watchers map[*watcher]struct{} // that what happens is told to
	running  sync.WaitGroup        // watchers
	there    map[*serverEnd]*observed
	lastID   uint64
	happened uint64 // how many events there were
}

// observed is what is kept of a connection for those who watch.
type observed struct {
	id      uint64
	conn    *Conn
	program atomic.Pointer[string] // nil while nobody has asked
}

// happening is an event as it waits to be told: it refers to what never changes, and is put into words on the watcher's time.
type happening struct {
	kind       WatchKind
	at         time.Time
	number     uint64 // in the order in which they happened
	bytes      int    // about what it takes, in memory and in words
	connection *observed

	qos     QoS
	context *token.Token
	source  uint64
	scopes  int
	lost    error

	following       int // scopes, of WatchFollowed
	followed        *token.Token
	followingSource uint64
}

// watched reports whether anybody watches.
func (o *observers) watched() bool { return o != nil && o.count.Load() > 0 }

// opened takes in a connection that nobody else has yet.
func (o *observers) opened(c *Conn) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed { // and so it was accepted at the last moment: nobody will watch it
		return
	}
	o.lastID++
	o.there[c.server] = &observed{id: o.lastID, conn: c}
	if o.watched() {
		o.tell(c.server.happening(WatchOpened), c.server)
	}
}

// gone lets go of a connection. s.mu is held.
func (o *observers) gone(s *serverEnd) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.watched() {
		o.tell(s.happening(WatchClosed), s)
	}
	delete(o.there, s)
}

// observe tells those who watch what has happened. s.mu is held.
func (s *serverEnd) observe(kind WatchKind) {
	if o := s.listener.observers; o.watched() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.tell(s.happening(kind), s)
	}
}

// observeScope counts the scopes in progress, of which there are n more.
func (s *serverEnd) observeScope(kind WatchKind, n int32) {
	o := s.listener.observers
	if o == nil {
		return
	}
	s.scopes.Add(n)
	if o.watched() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.observe(kind)
	}
}

// observeFollowed tells of scopes that have followed what is not the connection's context. s.mu is held.
func (s *serverEnd) observeFollowed(a *announce.Announced) {
	o, f := s.listener.observers, s.known.following
	if !o.watched() || f.current == a {
		return
	}
	h := s.happening(WatchFollowed)
	h.followed, h.followingSource = a.Token, a.Source
	for _, scope := range f.scopes {
		if scope.source == a.Source {
			h.following++
		}
	}
	if h.following > 0 {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.tell(h, s)
	}
}

// happening returns an event with all there is to tell of a connection. s.mu is held, or nobody else has s.
func (s *serverEnd) happening(kind WatchKind) happening {
	h := happening{kind: kind, at: time.Now(), scopes: int(s.scopes.Load())}
	if k := s.known; k != nil {
		h.qos, h.context, h.lost = k.qos, k.current, k.lost
		if k.following != nil {
			h.source = k.following.current.Source
		}
	}
	return h
}

// tell hands an event to everybody who watches and waits for nobody. o.mu is held.
func (o *observers) tell(h happening, s *serverEnd) {
	if h.connection = o.there[s]; h.connection == nil {
		return // it is closed, and that was the last to be told of it
	}
	o.happened++
	h.number = o.happened
	const besides = 256
	h.bytes = besides + s.peer.Bytes(nil) + h.context.Bytes(nil) + h.followed.Bytes(nil)
	for w := range o.watchers {
		if w.missed > 0 {
			w.missed++
			continue
		}
		if waiting := w.queued.Load(); waiting > 0 && waiting+int64(h.bytes) > watchQueueBytes {
			w.missed++
			continue
		}
		select {
		case w.queue <- h:
			w.queued.Add(int64(h.bytes))
		default:
			w.missed++
		}
	}
}

// close ends watching. It waits for those only who take what there is to tell at once.
func (o *observers) close() {
	if o == nil {
		return
	}
	o.mu.Lock()
	o.closed = true
	close(o.closing)
	watchers := slices.Collect(maps.Keys(o.watchers))
	o.mu.Unlock()
	o.file.Remove()
	o.socket.Close()
	for _, w := range watchers {
		w.conn.SetWriteDeadline(time.Now().Add(lastWrite))
	}
	told := make(chan struct{})
	go func() {
		o.running.Wait()
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(lastWords):
	}
}

const (
	// lastWords is how long a server that ends waits at most for those who watch, so that they hear of it.
	lastWords = 100 * time.Millisecond
	// lastWrite is how long it tries to tell them, if it does not exit.
	lastWrite = 2 * time.Second
)

// words puts an event into words.
func (h *happening) words() *WatchEvent {
	c := h.connection
	peer := c.conn.server.peer
	words := &WatchedConnection{
		ID: c.id, PID: peer.Source().PID, Program: c.programPath(), Client: *shownContext(peer),
		Level: h.qos.Level, Tracking: h.qos.Tracking, EffectiveOnly: h.qos.EffectiveOnly,
		Source: h.source, Scopes: h.scopes,
	}
	if h.qos.Level != Anonymous && h.context != nil {
		words.Context, words.Via = shownContext(h.context), h.context.Via()
	}
	if h.lost != nil {
		words.Lost = h.lost.Error()
	}
	e := &WatchEvent{Kind: h.kind, Time: h.at, Connection: words}
	if h.following > 0 {
		e.Followed = &WatchedFollowing{Scopes: h.following, Context: shownContext(h.followed), Source: h.followingSource}
		if h.followed != nil {
			e.Followed.Via = h.followed.Via()
		}
	}
	return e
}

// programPath returns the client's program as it was when somebody first asked. It is not taken from, nor put into, what chains are
// made of: watching changes nothing.
func (c *observed) programPath() string {
	path := c.program.Load()
	if path == nil {
		var hop token.Hop
		if c.conn.server.network == nil { // or it would be smbd's
			control(c.conn.socket, func(fd int) { hop = token.HopOf(fd) })
		}
		path = &hop.Program
		c.program.Store(path)
	}
	return *path
}

// line appends an event to what is to be written.
func line(b *bytes.Buffer, e *WatchEvent) {
	encoder := json.NewEncoder(b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(e) // nothing in it can fail
}
