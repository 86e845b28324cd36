package guise

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/quota"
	"github.com/guise-project/guise/token"
)

// admissions are those of clients with many groups. To read 65,536 of them takes milliseconds, and whoever has them can connect
// without end: that is not done on Accept's time, but on a goroutine for each user.
type admissions struct {
	mu      sync.Mutex
	waiting map[quota.User][]*net.UnixConn // the first is being admitted
	ready   []*Conn
}

const (
	// manyGroups is how many groups a client may have to be admitted on Accept's time.
	manyGroups = 1000
	// mostAdmitting is how many of a user's clients may wait to be admitted.
	mostAdmitting = 64
)

// take returns a client that was admitted, nil if there is none.
func (a *admissions) take() *Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ready) == 0 {
		return nil
	}
	c := a.ready[0]
	a.ready[0] = nil
	a.ready = a.ready[1:]
	return c
}

// admit makes a Conn of an accepted socket, which it takes over. It returns an error if the client is not let in, and no Conn if that is
// found out elsewhere.
func (l *Listener) admit(socket *net.UnixConn) (*Conn, error) {
	groups, uid := 0, uint32(0)
	control(socket, func(fd int) {
		if l.adopted {
			withoutMarks(fd) // it may have waited since before the listener was adopted
		}
		groups, _ = token.CountPeerGroups(fd) // what is wrong shows again
		if groups > manyGroups {
			if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				uid = cred.Uid
			}
		}
	})
	if groups <= manyGroups {
		return l.admitNow(socket)
	}
	user := quota.Of(uid)
	a := &l.admitting
	a.mu.Lock()
	defer a.mu.Unlock()
	queue := a.waiting[user]
	if len(queue) >= mostAdmitting {
		l.refuseUnknown(socket, uid)
		return nil, nil
	}
	if a.waiting == nil {
		a.waiting = make(map[quota.User][]*net.UnixConn)
	}
	a.waiting[user] = append(queue, socket)
	if len(queue) == 0 {
		go l.admitWaiting(user)
	}
	return nil, nil
}

// admitWaiting admits a user's clients one after the other.
func (l *Listener) admitWaiting(user quota.User) {
	a := &l.admitting
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.waiting[user]) > 0 {
		socket := a.waiting[user][0]
		a.mu.Unlock()
		c, err := l.admitNow(socket)
		a.mu.Lock()
		a.waiting[user] = a.waiting[user][1:]
		if err != nil {
			continue
		}
		select {
		case <-l.closing:
			a.mu.Unlock()
			c.Close()
			a.mu.Lock()
		default:
			a.ready = append(a.ready, c)
			_ = l.sockets.SetDeadline(time.Unix(1, 0)) // wakes Accept
		}
	}
	delete(a.waiting, user)
}

// admitNow is admit for a client that need not wait.
func (l *Listener) admitNow(socket *net.UnixConn) (*Conn, error) {
	t, err := token.Of(socket)
	taken := 0
	if err == nil {
		if l.config.AllowForeignRoot {
			t = t.AllowForeignRoot()
		}
		t = l.shared(t)
		if taken, err = l.takePlaces(t); err == nil {
			if err = l.allows(t); err != nil {
				l.givePlaces(t.UID(), taken)
			}
		}
	}
	if err != nil {
		l.refuse(socket, t, err)
		return nil, err
	}
	c := newConn(socket, l.pipe, l.config.Message)
	c.server = &serverEnd{listener: l, peer: t, places: taken}
	l.observers.opened(c)
	return c, nil
}

// refuseUnknown refuses a client that nothing but the uid is known of.
func (l *Listener) refuseUnknown(socket *net.UnixConn, uid uint32) {
	closePipe(socket, uid, false)
	l.log(slog.LevelWarn, uid, "client not let in", "uid", uid, "error",
		fmt.Errorf("%w: %d clients of uid %d with many groups wait to be let in", announce.ErrBusy, mostAdmitting, uid))
}
