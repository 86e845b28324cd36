package guise

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watchedMany returns somebody who watches a connection of a client of many groups, and writes to conn, and how that client changes.
func watchedMany(conn *net.UnixConn) (w *watcher, change func(source uint64)) {
	tokens := manyTokens(2, mostGroups)
	s := &serverEnd{peer: tokens[0]}
	there := &observed{id: 1, conn: &Conn{server: s}}
	there.program.Store(new(string))
	o := &observers{watchers: map[*watcher]struct{}{}, there: map[*serverEnd]*observed{s: there}}
	w = &watcher{observers: o, conn: conn, queue: make(chan happening, watchQueue)}
	o.watchers[w] = struct{}{}
	return w, func(source uint64) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.tell(happening{kind: WatchChanged, qos: QoS{Level: Impersonation}, context: tokens[1], source: source}, s)
	}
}

func TestWhoWatchesAndReadsNothingHasFewBytesWait(t *testing.T) {
	w, change := watchedMany(nil)
	const changes, mib = 500, 1 << 20
	for n := range uint64(changes) {
		change(n)
	}
	waiting, missed := len(w.queue), w.missed
	if waiting == 0 || waiting+int(missed) != changes {
		t.Errorf("of %d events %d wait and %d are missed", changes, waiting, missed)
	}
	bytes := 0
	for range waiting {
		h := <-w.queue
		bytes += h.connection.conn.server.peer.Bytes(nil) + h.context.Bytes(nil)
	}
	if bytes > 5*mib {
		t.Errorf("%d events of a client of %d groups wait, %d MiB", waiting, mostGroups, bytes/mib)
	}
}

// TestLinesForWhoWatchesAreSentAsTheyAreMade: those of a client of many groups are long.
func TestLinesForWhoWatchesAreSentAsTheyAreMade(t *testing.T) {
	near, far := rawPair(unix.SOCK_STREAM)
	conns := make([]*net.UnixConn, 2)
	for i, fd := range []int{near, far} {
		f := os.NewFile(uintptr(fd), "watch")
		conns[i] = must1(net.FileConn(f)).(*net.UnixConn)
		f.Close()
		defer conns[i].Close()
	}
	w, change := watchedMany(conns[0])
	const rounds = 8
	got := make(chan int, 1)
	go func() {
		conns[1].SetReadDeadline(time.Now().Add(hanging))
		lines := bufio.NewScanner(conns[1])
		lines.Buffer(nil, mostLine)
		n := 0
		for lines.Scan() {
			var e WatchEvent
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Connection.Source != uint64(n) || len(e.Connection.Context.Groups) != mostGroups {
				t.Errorf("line %d is of another event, or none: %v", n, err)
			}
			n++
		}
		got <- n
	}()
	made := uint64(0)
	for range rounds {
		for queued := len(w.queue); ; queued = len(w.queue) {
			if change(made); len(w.queue) == queued {
				break // missed
			}
			made++
		}
		w.missed = 0
		if err := w.wordQueued(); err != nil {
			t.Fatal(err)
		}
	}
	conns[0].Close()
	if n := <-got; n != int(made) || made < 2*rounds {
		t.Errorf("%d lines arrived of %d events", n, made)
	}
	if most := w.buffer.Cap(); most > 4<<20 {
		t.Errorf("%d lines were put together in %d MiB", made, most>>20)
	}
	if left := w.queued.Load(); left != 0 {
		t.Errorf("%d bytes are counted as queued when all has been told", left)
	}
}
