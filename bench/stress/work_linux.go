package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// behind is how far an operation may be behind its client: how long before its start the client may have become another than it
// shows. At each hop two wake-ups are due, which take microseconds, and a client that changes as fast as it can is taken in at
// intervals of 10 ms (changesInterval). On two slow cores with the race detector, and ten other threads that wanted to run, 99 of 100
// that were behind at all were so by 40 ms at the first hop and by 150 ms at the eighth, those of clients that change as fast as they
// can by 200 ms and 330 ms. What is never announced, or whose signal is lost, is behind for as long as its client stays. Where a
// machine kept these processes from running at the time that comes on top: see stalled.
func behind(hop uint32) time.Duration {
	return 500*time.Millisecond + time.Duration(hop)*50*time.Millisecond
}

// work is what a server goroutine does in one scope.
type work struct {
	serving *serving
	request request
	place   place
	history history
	read    int64 // when the request had been read

	first   uint64 // state that it may show: none from before what it was told, or has shown itself
	count   int
	shown   who   // last
	shownAt int64 // when that operation began
	settled bool
	since   int64 // when it was seen first to be its client's last identity
}

func (w *work) inScope(scope *guise.Scope, next *guise.Conn) error {
	w.first = w.request.First
	r := &w.serving.report
	r.mu.Lock()
	r.Scopes++
	r.mu.Unlock()
	if err := w.operate(); err != nil {
		return err
	}
	if w.request.Hop == w.request.Hops {
		return w.workUntil(func() (bool, error) {
			return now()-w.read > int64(w.request.Duration) && w.serving.board.phase() != settling, nil
		})
	}
	if next == nil {
		var err error
		if next, err = w.serving.dialNext(w.request); err != nil {
			return err
		}
		defer next.Close()
	}
	forward := w.request
	forward.Place++
	forward.Hop++
	forward.First = w.first
	if err := forward.write(next); err != nil {
		return fmt.Errorf("writing to the next server: %w", err)
	}
	answered := make(chan error, 1)
	go func() { //guise:scope-ok it only reads what is open
		_, err := next.Read(make([]byte, 1))
		answered <- err
	}()
	return w.workUntil(func() (bool, error) {
		select {
		case err := <-answered:
			if err != nil {
				err = fmt.Errorf("waiting for the next server: %w", err)
			}
			return true, err
		default:
			return false, nil
		}
	})
}

// workUntil works, sometimes without a pause, sometimes computing in between, until it is done.
func (w *work) workUntil(done func() (bool, error)) error {
	for {
		if done, err := done(); done || err != nil {
			return err
		}
		switch n := rand.IntN(8); {
		case w.serving.board.phase() == settling:
			if err := w.settle(); err != nil {
				return err
			}
			time.Sleep(2 * time.Millisecond)
		case n == 0:
		case n == 1:
			for end := now() + int64(time.Millisecond); now() < end; {
			}
		default:
			time.Sleep(rand.N(120 * time.Millisecond))
		}
		if err := w.operate(); err != nil {
			return err
		}
	}
}

// settle looks whether the thread has become its client's last identity. It must not become another any more.
func (w *work) settle() error {
	stopped := w.history.stoppedAt()
	if w.request.Last != newest {
		stopped = now() // a scope of the client's is what it is
	}
	if w.settled || stopped == 0 {
		return nil
	}
	last := min(w.history.last(), w.request.Last)
	is, err := snapshot()
	if err != nil {
		return err
	}
	if is != w.history.state(last) {
		w.since = 0
		return nil
	}
	if w.since == 0 {
		w.since = now()
	}
	// One of those that come again may be that of an earlier time.
	if w.part().recurring && now()-w.since < int64(behind(w.request.Hop)) {
		return nil
	}
	w.settled = true
	w.first = last
	w.place.settle(max(0, w.since-max(stopped, w.read)))
	return nil
}

// operate does one operation, and looks whether its client was at that time who it shows.
func (w *work) operate() error {
	w.place.alive()
	w.count++
	start := now()
	is, err := snapshot()
	if err != nil {
		return err
	}
	f, err := w.check("the thread is "+is.String(), start, now(), func(o who) bool { return o == is })
	if err != nil {
		return err
	}
	// Root comes twice: on the way to an identity and on the way from it.
	if is.uid != 0 && !w.part().recurring || w.request.Last != newest {
		// There is no way back. Only, while all threads of a client are changing, some have changed and some not.
		if ended := w.history.ended(f.state); ended == 0 || ended > start {
			f.state -= min(f.state, 1)
		}
		w.first = max(w.first, f.state)
	}
	if is != w.shown {
		w.shown, w.shownAt = is, start
		r := &w.serving.report
		r.mu.Lock()
		r.Changes++
		r.mu.Unlock()
	}
	switch n := rand.IntN(16); {
	case n == 0:
		return nest()
	case n < 4:
		return w.askIDs()
	case n < 8 && w.part().recurring:
		return w.openPrivate()
	default:
		return w.createFile()
	}
}

func (w *work) part() part { return partOf(int(w.request.Client)) }

// nest works for a while in a scope of somebody else inside the one that follows. There the thread must not follow.
func nest() error {
	inner := who{followedID - 1, followedID - 2, followedID - 3}
	t, err := token.FromIDs(inner.uid, inner.gid, []uint32{inner.group})
	if err != nil {
		return err
	}
	return guise.RunAs(t, func(*guise.Scope) error {
		for range 4 {
			if is, err := snapshot(); err != nil || is != inner {
				return errors.Join(err, fmt.Errorf("in a scope of %v inside, the thread is %v", inner, is))
			}
			time.Sleep(rand.N(20 * time.Millisecond))
		}
		return nil
	})
}

// snapshot asks the kernel for all ids of the thread at one moment: they can change between two questions.
func snapshot() (who, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return who{}, fmt.Errorf("making a socketpair: %w", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	cred, err := unix.GetsockoptUcred(pair[0], unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return who{}, err
	}
	var groups [8]uint32
	size := uint32(unsafe.Sizeof(groups))
	_, _, e := syscall.Syscall6(unix.SYS_GETSOCKOPT, uintptr(pair[0]), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&groups)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return who{}, fmt.Errorf("asking for the groups: %w", e)
	}
	if size != 4 {
		return who{}, fmt.Errorf("uid %d gid %d has groups %v, should have one", cred.Uid, cred.Gid, groups[:size/4])
	}
	return who{cred.Uid, cred.Gid, groups[0]}, nil
}

// askIDs asks for each id by itself.
func (w *work) askIDs() error {
	for _, ask := range []struct {
		what string
		call uintptr
		of   func(who) uint32
	}{
		{"euid", unix.SYS_GETEUID, func(o who) uint32 { return o.uid }},
		{"egid", unix.SYS_GETEGID, func(o who) uint32 { return o.gid }},
	} {
		start := now()
		id, _, _ := syscall.RawSyscall(ask.call, 0, 0, 0)
		if _, err := w.check(fmt.Sprint(ask.what, " is ", id), start, now(), func(o who) bool { return ask.of(o) == uint32(id) }); err != nil {
			return err
		}
	}
	var groups [8]uint32
	start := now()
	n, _, _ := syscall.RawSyscall(unix.SYS_GETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups)), 0)
	end := now()
	if n != 1 {
		return fmt.Errorf("getgroups returned %d, should be one group", int(n))
	}
	_, err := w.check(fmt.Sprint("the group is ", groups[0]), start, end, func(o who) bool { return o.group == groups[0] })
	return err
}

// createFile creates a file and looks whose the kernel made it.
func (w *work) createFile() error {
	path := filepath.Join(w.serving.paths.files(int(w.request.Place)), fmt.Sprint(w.read, "-", w.count))
	start := now()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	end := now()
	if err != nil {
		return fmt.Errorf("creating %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Unlink(path)); err != nil {
		return fmt.Errorf("looking at %s: %w", path, err)
	}
	r := &w.serving.report
	r.mu.Lock()
	r.Files++
	r.mu.Unlock()
	_, err = w.check(fmt.Sprintf("a file was made of uid %d gid %d", st.Uid, st.Gid), start, end,
		func(o who) bool { return o.uid == st.Uid && o.gid == st.Gid })
	return err
}

// openPrivate opens a file that only one of its client's identities may read, and root if it has the capabilities, which it may lack
// when its client has become another since.
func (w *work) openPrivate() error {
	n := rand.Uint32N(fewIDs)
	owner := nth(int(w.request.Client), n)
	of, ofGroup := w.serving.paths.private(int(w.request.Client), n)
	for _, file := range []struct {
		path string
		its  func(who) bool
	}{
		{of, func(o who) bool { return o.uid == owner.uid }},
		{ofGroup, func(o who) bool { return o.group == owner.group }},
	} {
		start := now()
		fd, err := unix.Open(file.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		end := now()
		if err == nil {
			unix.Close(fd)
		} else if err != unix.EACCES {
			return fmt.Errorf("opening %s: %w", file.path, err)
		}
		r := &w.serving.report
		r.mu.Lock()
		if err == nil {
			r.Opened++
		} else {
			r.Refused++
		}
		r.mu.Unlock()
		opened := err == nil
		_, err = w.check(fmt.Sprintf("that it can open %s is %v", file.path, opened), start, end, func(o who) bool { return o.uid == 0 || file.its(o) == opened })
		if err != nil {
			return err
		}
	}
	return nil
}

// check looks whether the client was at some time of an operation who that has shown. One that is late only it counts, and tells of;
// the error is of what must never be.
func (w *work) check(shown string, start, end int64, matches func(who) bool) (found, error) {
	of := func(_ uint64, o who) bool { return matches(o) }
	f := w.history.find(span{from: 0, to: end, first: w.first, last: w.request.Last}, of)
	var lag time.Duration
	if f.over != 0 && w.request.Last == newest { // another scope's context is kept
		lag = max(0, time.Duration(start-f.over))
	}
	if f.ok || f.lost {
		bound := w.judged(f, lag, start, end)
		if lag > bound {
			w.serving.late(w.request.wrap(w.wrong(fmt.Sprintf("%s, %.3f ms after the client had ceased to be that, where %v is the bound on this machine just now",
				shown, float64(lag)/1e6, bound), start, end)))
		}
		return f, nil
	}
	told := "which the client has never been"
	if earlier := w.history.find(span{0, end, 0, newest}, of); earlier.ok {
		told = fmt.Sprintf("which the client was last in state %d, but it was in state %d when it wrote, or the scope had seen that", earlier.state, w.first)
	} else if earlier.lost {
		told = "which the client has not been as far as its history goes back"
	}
	return f, w.wrong(shown+", "+told, start, end)
}

// judged counts an operation, and returns its bound.
func (w *work) judged(f found, lag time.Duration, start, end int64) time.Duration {
	bound, hop := behind(w.request.Hop), int(w.request.Hop)
	r := &w.serving.report
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.lost {
		r.Untold++
		return bound
	}
	if w.part().flood {
		r.FloodLags[hop-1].add(lag)
	} else {
		r.Lags[hop-1].add(lag)
	}
	if lag > bound {
		r.Stalled++
		bound += w.serving.board.stalled(int(w.request.Client), int(w.request.Place), hop, start-int64(lag), end)
	}
	return bound
}

func (w *work) wrong(what string, start, end int64) error {
	if w.count > 1 {
		what += fmt.Sprintf(". What it showed last was %v, first %.3f ms before", w.shown, float64(start-w.shownAt)/1e6)
	}
	return fmt.Errorf("%s. It is operation %d of the scope, began %.3f ms after the request was read, and took %.3f ms. The client's states, with times before its end:%s",
		what, w.count, float64(start-w.read)/1e6, float64(end-start)/1e6,
		w.history.tell(span{from: start - int64(behind(w.request.Hop)), to: end, first: w.first, last: newest}))
}
