package main

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/role"
)

// longestHold is how long the library server keeps a scope for a client that asks it to.
const longestHold = 200 * time.Millisecond

// beLibrary is the role of the server that uses the library. Its clients say, line by line, what it is to do as them:
//
//	who TEXT     answers TEXT, who it is, and whose a file is that it makes
//	hold TEXT    the same, at the end of a scope of some time in which that must not change
//	follow       says who it is, and again whenever that changes, until there is a line more; that is answered
//
// Its own standard input asks it for the number of its goroutines, a line for each.
func beLibrary(args []string) error {
	b := besieged(args[0])
	l, err := guise.Listen(b.library(), &guise.ListenConfig{Logger: slog.New(slog.NewTextHandler(honestLines{}, nil))})
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.AcceptPipe()
			if err != nil {
				fmt.Fprintln(os.Stderr, "stress: the library server accepts no more:", err)
				return
			}
			go answerAsClient(c, b.files())
		}
	}()
	fmt.Println("ready")
	for asked := bufio.NewScanner(os.Stdin); asked.Scan(); {
		debug.FreeOSMemory()
		fmt.Println(runtime.NumGoroutine())
	}
	return nil // the process ends, whatever hangs in it
}

// honestLines passes on what the log has to say of honest users: that should be nothing.
type honestLines struct{}

var honestUID = regexp.MustCompile(fmt.Sprintf(`\b%d[0-9]{2}\b`, firstHonest/100))

func (honestLines) Write(line []byte) (int, error) {
	if honestUID.Match(line) {
		fmt.Fprintf(os.Stderr, "stress: the library server's log: %s", line)
	}
	return len(line), nil
}

func answerAsClient(c *guise.Conn, files string) {
	defer c.Close()
	lines := bufio.NewReader(c)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return
		}
		what, text, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		switch what {
		case "who", "hold":
			var seen string
			err = c.RunAsClient(func(*guise.Scope) error {
				seen, err = lookAsClient(files)
				if err == nil && what == "hold" {
					seen, err = holdScope(files, seen)
				}
				return err
			})
			if err == nil {
				_, err = fmt.Fprintf(c, "%s %s\n", text, seen)
			}
		case "follow":
			err = followClient(c, lines)
		default:
			err = errors.New("it asks for something unknown")
		}
		if err != nil {
			if peer, peerErr := c.Peer(); peerErr == nil && isHonest(peer.UID()) {
				fmt.Fprintf(os.Stderr, "stress: the library server, for the honest user %d: %s: %v\n", peer.UID(), what, err)
			}
			return
		}
	}
}

// lookAsClient says who the kernel takes this thread for.
func lookAsClient(files string) (string, error) {
	fd, err := unix.Open(files, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	is, err := threadNow()
	return fmt.Sprintf("%s, files are %d:%d's", is, st.Uid, st.Gid), err
}

// holdScope stays in the scope for a while, and returns what it saw last.
func holdScope(files, before string) (string, error) {
	for begun := time.Now(); time.Since(begun) < longestHold; time.Sleep(20 * time.Millisecond) {
		now, err := lookAsClient(files)
		if err != nil || now != before {
			return now, err
		}
	}
	return before, nil
}

// followClient says in one scope who it is, each time that this is somebody else.
func followClient(c *guise.Conn, lines *bufio.Reader) error {
	var ended atomic.Bool
	read := make(chan error, 1)
	err := c.RunAsClient(func(*guise.Scope) error {
		go func() { //guise:scope-ok it only reads what is open
			_, err := lines.ReadSlice('\n')
			read <- err
			ended.Store(true)
		}()
		for last := ""; !ended.Load(); time.Sleep(time.Millisecond) {
			is, err := threadNow()
			if err != nil {
				return err
			}
			if is != last {
				last = is
				if _, err := fmt.Fprintln(c, is); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		c.Close() // or the goroutine that reads would stay
		<-read
		return err
	}
	if err := <-read; err != nil {
		return err
	}
	_, err = fmt.Fprintln(c, "done")
	return err
}

// threadNow is who this thread is: uid, gid, groups.
func threadNow() (string, error) {
	// It asks how many there are first, and the thread may have more of them since.
	groups, err := unix.Getgroups()
	for err == unix.EINVAL {
		groups, err = unix.Getgroups()
	}
	return identityText(uint32(unix.Geteuid()), uint32(unix.Getegid()), groups), err
}

func identityText[G int | uint32](uid, gid uint32, groups []G) string {
	groups = slices.Sorted(slices.Values(groups))
	return fmt.Sprintf("%d:%d:%s", uid, gid, strings.Trim(strings.ReplaceAll(fmt.Sprint(groups), " ", ","), "[]"))
}

// textOf is what a server is to see of who has the ids.
func textOf(ids role.IDs) string { return identityText(ids.UID, ids.GID, ids.Groups) }
