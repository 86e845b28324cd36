package guise

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/quota"
)

// Flush waits until the other end has read all that was written, or has gone; then it returns nil, and otherwise ctx's error (NT:
// FlushFileBuffers). Between machines the other end is this one's smbd, which reads when its client does. A client's end of a pipe on another
// machine waits until the data is on its way.
func (c *Conn) Flush(ctx context.Context) error {
	return c.fail("flush", c.flush(ctx))
}

// The pauses between looks at the socket double from the first to the last.
const (
	firstLook = 50 * time.Microsecond
	lastLook  = 100 * time.Millisecond
)

func (c *Conn) flush(ctx context.Context) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		taken := true // a closed socket has nothing to wait for
		control(c.socket, func(fd int) { taken = c.taken(fd) })
		if taken {
			return nil
		}
		pause.Reset(wait)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// taken reports whether the other end of fd has read everything, or has gone.
func (c *Conn) taken(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	if n, err := unix.Poll(p, 0); err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
		return true
	}
	left, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return true
	}
	return left == 0 && (c.server == nil || c.server.network == nil || sambaRests(fd))
}

// sambaRests reports whether smbd, which has read everything, has also dealt with it. On a pipe of bytes it looks after each read whether
// more is there, and if it then sees that the pipe was closed it forgets what it has just read (tsocket_bsd_pending in Samba's
// lib/tsocket). It does that without ever waiting for anything, so once it sleeps it has passed that place. The pid may be another process's by now,
// which only costs time; of a process that can't be seen nothing is known.
func sambaRests(fd int) bool {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || cred.Pid <= 0 {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(int(cred.Pid)) + "/stat")
	if err != nil {
		return true
	}
	// The state comes after the name, which is in parentheses and may have some in it (proc(5)).
	name := bytes.LastIndexByte(stat, ')')
	return name < 0 || name+2 >= len(stat) || stat[name+2] == 'S'
}

// lingerTime is how long the client of another machine may take to read what was written before the Close.
const lingerTime = 30 * time.Second

// lingerers are the closed connections that wait for that. More are closed at once.
var lingerers = quota.Shares[netip.Addr]{Most: 1024, Each: 128}

// linger calls closing once smbd has taken everything: what it has not dealt with when it sees the end it takes from its client.
func (c *Conn) linger(closing func()) {
	taken := true
	control(c.socket, func(fd int) { taken = c.taken(fd) })
	of := c.server.network.client
	if taken || !lingerers.Take(of) {
		closing()
		return
	}
	go func() {
		defer lingerers.Give(of)
		ctx, cancel := context.WithTimeout(context.Background(), lingerTime)
		defer cancel()
		_ = c.flush(ctx)
		closing()
	}()
}
