package guise_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
)

var oneByte [1]byte

func firstByte() unsafe.Pointer { return unsafe.Pointer(&oneByte) }

// startClient starts a client of l as a process without privileges that is uid 61001 and may become 61002.
func startClient(t testing.TB, l *guise.Listener) *roleProcess {
	t.Helper()
	return startRole(t, "client", nil, "GUISE_TEST_PATH="+l.Addr().String())
}

var _ = addRole("client", func() {
	must(syscall.Setgroups([]int{61101}))
	must(syscall.Setresgid(61001, 61001, 61001))
	must(syscall.Setresuid(61001, 61001, 61002))
	near := must1(guise.Dial(os.Getenv("GUISE_TEST_PATH"), dynamic))
	must1(near.Write([]byte("x")))
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); fmt.Println("done") {
		order, uid := orders.Text(), 0
		if i := strings.LastIndexByte(order, ' '); i >= 0 {
			if _, err := fmt.Sscan(order[i:], &uid); err == nil {
				order = order[:i]
			}
		}
		switch order {
		case "all threads":
			must(syscall.Setresuid(-1, uid, -1))
		case "one thread":
			const unchanged = ^uintptr(0)
			if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged); e != 0 {
				must(e)
			}
		case "write":
			must1(near.Write([]byte("x")))
		case "fill": // until the pipe is full, and on
			go near.Write(make([]byte, 64<<20))
		case "close":
			must(near.Close())
		case "exec":
			fmt.Println("done")
			must(syscall.Exec("/bin/cat", []string{"cat"}, os.Environ()))
		case "use up descriptors":
			useUpDescriptors()
		case "let descriptors go":
			letDescriptorsGo()
		default:
			must(fmt.Errorf("an order that nobody knows: %q", order))
		}
	}
})

var (
	usedUp          []int
	descriptorLimit syscall.Rlimit
)

func useUpDescriptors() {
	var limit syscall.Rlimit
	must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	descriptorLimit = limit
	limit.Cur = 64
	must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	for {
		fd, err := unix.Open("/dev/null", unix.O_CLOEXEC, 0)
		if err == unix.EMFILE {
			return
		}
		must(err)
		usedUp = append(usedUp, fd)
	}
}

func letDescriptorsGo() {
	must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &descriptorLimit)) // it also bounds what this user may have under way
	for _, fd := range usedUp {
		unix.Close(fd)
	}
	usedUp = nil
}
