package thread_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

func init() {
	roles["server of a client that reschedules"] = serveRescheduler
	roles["client in its own user namespace"] = enterNamespace
	roles["reschedule threads"] = rescheduleThreads
}

// TestNoThreadStaysAsAClientScheduledIt has a client change all threads of a server that wear it, as fast as it can, also at the very
// moment when they stop doing so.
func TestNoThreadStaysAsAClientScheduledIt(t *testing.T) {
	needRoot(t)
	server := roleCommand("server of a client that reschedules")
	toServer, fromServer := pipes(t, server)
	started, err := fromServer.ReadString('\n')
	if err != nil {
		t.Fatalf("the server ended before it began: %v", err)
	}
	var clients []*exec.Cmd
	for range 2 {
		client := roleCommand("client in its own user namespace")
		client.Args = append(client.Args, strings.TrimSpace(started))
		client.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61001, Gid: 61001}}
		client.Stderr = os.Stderr
		end, err := client.StdinPipe()
		if err == nil {
			err = client.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
		defer end.Close()
	}
	fmt.Fprintln(toServer, "begin")
	result, _ := fromServer.ReadString('\n')
	for _, client := range clients {
		if err := client.Process.Kill(); err != nil { // its child ends with it
			t.Fatal(err)
		}
		client.Wait()
	}
	fmt.Fprintln(toServer, "clients have gone")
	rest, _ := io.ReadAll(fromServer)
	if err := server.Wait(); err != nil || !strings.HasPrefix(result, "changed") || string(rest) != "" {
		t.Errorf("scopes: %vthreads that stay as the client scheduled them, or errors:\n%s(%v)", result, rest, err)
	}
}

// pipes starts a role that talks on its standard input and output.
func pipes(t *testing.T, c *exec.Cmd) (io.WriteCloser, *bufio.Reader) {
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in, bufio.NewReader(out)
}

// serveRescheduler has goroutines that do short scopes, and wait for each other in between, so that the threads go round.
func serveRescheduler() {
	input := bufio.NewReader(os.Stdin)
	client, err := token.FromIDs(61001, 61001, nil)
	if err != nil {
		panic(err)
	}
	before, _ := scheduled(unix.Gettid())
	fmt.Println(os.Getpid())
	input.ReadString('\n')

	const scopes = 40_000
	var begun, changed atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for begun.Add(1) <= scopes || changed.Load() < 100 {
				var w thread.Worn
				if err := w.Enter(client); err != nil {
					fmt.Println("entering:", err)
					return
				}
				for range 5 {
					if now, err := scheduled(0); err != nil || now != before {
						changed.Add(1)
					}
				}
				if err := w.Leave(); err != nil {
					fmt.Println("leaving:", err)
					return
				}
				runtime.Gosched()
			}
		})
	}
	all.Wait()
	fmt.Printf("changed %d times in %d scopes\n", changed.Load(), begun.Load())
	input.ReadString('\n')

	// A call of the client's may have come after the last scope of a thread.
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var stay strings.Builder
		for _, tid := range threads(os.Getpid()) {
			if now, err := scheduled(tid); err == nil && now != before {
				fmt.Fprintf(&stay, "thread %d: %s instead of %s\n", tid, now, before)
			}
		}
		if stay.Len() == 0 || time.Since(begun) > 30*time.Second {
			fmt.Print(stay.String())
			os.Exit(0)
		}
	}
}

// enterNamespace is what unshare -Ur does.
func enterNamespace() {
	c := roleCommand("reschedule threads")
	c.Args = append(c.Args, os.Args[1])
	own := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 61001, Size: 1}}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: own, GidMappings: own,
		Credential: &syscall.Credential{NoSetGroups: true}, Pdeathsig: unix.SIGKILL,
	}
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "a client in its own user namespace:", err)
	}
	os.Exit(0)
}

// rescheduleThreads changes whichever thread of a process it may, without end.
func rescheduleThreads() {
	pid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	var one unix.CPUSet
	one.Set(0)
	for round := 0; ; round++ {
		for _, tid := range threads(pid) {
			switch round % 4 {
			case 0:
				unix.Setpriority(unix.PRIO_PROCESS, tid, 5)
			case 1:
				unix.SchedSetaffinity(tid, &one)
			case 2:
				unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH, Nice: 5}, 0)
			case 3:
				unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE, Nice: 5}, 0)
			}
		}
	}
}

func threads(pid int) []int {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	var tids []int
	for _, name := range names {
		if tid, err := strconv.Atoi(filepath.Base(name)); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids
}

// scheduled tells how a thread is scheduled.
func scheduled(tid int) (string, error) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return "", err
	}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(tid, &cpus); err != nil {
		return "", err
	}
	return fmt.Sprintf("policy %d, flags %#x, nice %d, slice %d on %d CPUs", attr.Policy, attr.Flags, attr.Nice, attr.Runtime, cpus.Count()), nil
}
