package guise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// TestConnectionsOfOneUserAreBounded: and another user is let in all the same, and the first one again once it has closed some.
func TestConnectionsOfOneUserAreBounded(t *testing.T) {
	needRoot(t, "the clients have ids of their own")
	const most = 5
	l := listenAt(t, &ListenConfig{MaxPerUser: most})
	connect := func(uid uint32) (fd int) {
		asUID(uid, func() { fd = rawConnect(l.Addr().String()) })
		return fd
	}
	leftover.ByThis(t, func() {
		var clients []int
		defer func() {
			for _, fd := range clients {
				unix.Close(fd)
			}
		}()
		var servers []*Conn
		for range most {
			clients = append(clients, connect(61001))
			servers = append(servers, acceptFrom(t, l))
		}
		refused := make(chan error, 1)
		go func() {
			asUID(61001, func() {
				c, err := Dial(l.Addr().String(), nil)
				if err == nil {
					_, err = c.Read(make([]byte, 1))
					c.Close()
				}
				refused <- err
			})
		}()
		accepted := make(chan *Conn, 1)
		go func() { accepted <- acceptFrom(t, l) }() // passes over the one that is refused
		var refusal announce.Refusal
		if err := <-refused; !errors.As(err, &refusal) || refusal != announce.RefusedBusy {
			if err == nil { // it may have been refused before it could send its preface
				t.Errorf("connection %d of a user: it goes on, want a refusal", most+1)
			}
		}
		clients = append(clients, connect(61002))
		servers = append(servers, <-accepted)
		if uid := peerUID(t, servers[most]); uid != 61002 {
			t.Errorf("after a user took all it may have, a client of uid %d was let in, want 61002", uid)
		}
		servers[0].Close()
		clients = append(clients, connect(61001))
		servers = append(servers, acceptFrom(t, l))
		for _, s := range servers {
			s.Close()
		}
	})
}

func peerUID(t *testing.T, c *Conn) uint32 {
	t.Helper()
	peer, err := c.Peer()
	if err != nil {
		t.Fatal(err)
	}
	return peer.UID()
}

var _ = addRole("few-descriptors", func() {
	must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: 256}))
	l := must1(Listen(os.Getenv("GUISE_TEST_PATH"), nil))
	defer l.Close()
	fmt.Println("listening")
	var kept []*Conn
	for {
		c := must1(l.AcceptPipe())
		if must1(c.Peer()).UID() != 61002 {
			kept = append(kept, c)
			continue
		}
		must1(c.Write([]byte("served")))
		c.Close()
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			break
		}
	}
	fmt.Println(len(kept))
})

// TestUserThatTakesAllConnectionsLeavesRoomForOthers of a server that may have 256 descriptors.
func TestUserThatTakesAllConnectionsLeavesRoomForOthers(t *testing.T) {
	needRoot(t, "the clients have ids of their own")
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	server := startRaw(t, "few-descriptors", nil, []string{"GUISE_TEST_PATH=" + path})
	server.out.line()
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for round := range 3 {
		asUID(61001, func() {
			for range 400 {
				fds = append(fds, rawConnect(path))
			}
		})
		var said []byte
		asUID(61002, func() {
			fd := rawConnect(path)
			defer unix.Close(fd)
			said = make([]byte, 16)
			n := must1(readUninterrupted(fd, said))
			said = said[:n]
		})
		if string(said) != "served" {
			t.Fatalf("round %d: the other user reads %q", round, said)
		}
		if round < 2 {
			server.resume()
		}
	}
	if kept := strings.Fields(server.end()); len(kept) != 2 || kept[1] == "0" {
		t.Errorf("the server says %q: the user who takes all should have got some", kept)
	}
}

// asUID calls f in a scope of uid's, on a goroutine of its own.
func asUID(uid uint32, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		must(RunAs(must1(token.FromIDs(uid, uid, nil)), func(*Scope) error { f(); return nil }))
	}()
	<-done
}
