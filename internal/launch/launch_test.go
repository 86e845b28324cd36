package launch_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/hostile"
	"github.com/guise-project/guise/internal/launch"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/internal/without"
)

var roles = map[string]func(){
	// Both have a file of a file system whose server never answers FUSE_FLUSH.
	"hangs by os/exec": func() {
		hold(os.Args[1])
		must(exec.Command("/bin/true").Run())
		fmt.Println("ended")
		waitEnd()
	},
	"does not hang": func() {
		must(launch.Prepare())
		hold(os.Args[1])
		out, err := runProgram("/bin/echo", "ended")
		must(err)
		fmt.Print(out)
		waitEnd()
	},
	"changes its ids": func() {
		must(launch.Prepare())
		must(syscall.Setgroups([]int{12345}))
		must(syscall.Setresgid(54321, 54321, 54321))
		must(syscall.Setresuid(54321, 54321, 54321))
		out, err := runProgram("/usr/bin/id", "-G")
		must(err)
		fmt.Print(out)
		out, err = runProgram("/usr/bin/id", "-u")
		must(err)
		fmt.Print(out)
	},
	"has open descriptors": func() {
		for range 20 {
			_, err := unix.Open(os.DevNull, unix.O_RDONLY, 0) // not close-on-exec
			must(err)
		}
		must(launch.Prepare())
		out, err := runProgram("/bin/ls", "/proc/self/fd")
		must(err)
		fmt.Println(strings.Join(strings.Fields(out), " "))
		fmt.Println(thisThread())
	},
	"has only its main thread to run on": func() {
		runtime.GOMAXPROCS(1)
		runtime.UnlockOSThread() // an init function locked it
		null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(err)
		must(launch.Prepare())
		_, ok := descriptors(fmt.Sprintf("/proc/%d/fd", os.Getpid()))[fmt.Sprint(null)]
		fmt.Println(ok)
	},
	"has none to spare": func() {
		var was unix.Rlimit
		must(unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
		limit := func(n uint64) { must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: was.Max})) }
		limit(3)
		_, err := launch.Start("/bin/true", []string{"true"}, nil, nil, nil)
		fmt.Println(err)
		limit(was.Cur)
		must(launch.Prepare())
		null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(err)
		limit(3)
		_, err = launch.Start("/bin/true", []string{"true"}, nil, []int{null}, nil)
		fmt.Println(err)
		limit(was.Cur)
		out, err := runProgram("/bin/echo", "as before")
		must(err)
		fmt.Print(out)
	},
	"may not": func() {
		done := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			must(without.Call(unix.SYS_CLOSE_RANGE, unix.ENOSYS))
			fmt.Println(leaveAndList())
			close(done)
		}()
		<-done
		done = make(chan struct{})
		go func() {
			runtime.LockOSThread()
			must(without.Call(unix.SYS_CLOSE_RANGE, unix.EPERM))
			must(without.Call(unix.SYS_UNSHARE, unix.EPERM))
			fmt.Println(launch.LeaveTable([]int{0, 1, 2}))
			close(done)
		}()
		<-done
	},
}

// hold has this process have a file open, by many descriptors.
func hold(path string) {
	for range 3 {
		_, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(err)
	}
}

// leaveAndList leaves the process's table on this thread and returns what it has then.
func leaveAndList() []int {
	must(launch.LeaveTable([]int{0, 1, 2}))
	open, err := launch.OwnDescriptors()
	must(err)
	slices.Sort(open)
	return open
}

// thisThread returns what the package's thread has open.
func thisThread() string {
	tasks, err := filepath.Glob("/proc/self/task/*/fd")
	must(err)
	process := descriptors("/proc/self/fd")
	var found []string
	for _, task := range tasks {
		// Another thread may open what the process has not had yet, but closes none of what it had.
		if has := descriptors(task); len(has) < len(process)/2 {
			found = append(found, strings.Join(slices.Sorted(maps.Values(has)), " "))
		}
	}
	return strings.Join(found, "; ")
}

func descriptors(dir string) map[string]string {
	entries, err := os.ReadDir(dir)
	must(err)
	has := make(map[string]string)
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			kind, _, _ := strings.Cut(to, ":[")
			switch {
			case slices.Contains([]string{"0", "1", "2"}, e.Name()):
				kind = e.Name()
			case strings.HasPrefix(to, "anon_inode"):
				kind = to
			}
			has[e.Name()] = kind
		}
	}
	return has
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func mountFUSE(t *testing.T, never ...hostile.Opcode) (f *hostile.FUSE, dir string) {
	t.Helper()
	dir = testdir.Open(t, 0o755)
	f, err := hostile.MountFUSE(dir, never...)
	if err != nil {
		t.Skipf("a hostile file system can't be mounted here: %v", err)
	}
	return f, dir
}

// A client passes the server a file of its own file system, whose closing never ends. Other clients' programs start all the same.
func TestProgramStartsThoughClosingHangs(t *testing.T) {
	for _, c := range []struct {
		role  string
		hangs bool
	}{
		{"hangs by os/exec", true}, // or the test sets up nothing
		{"does not hang", false},
	} {
		t.Run(c.role, func(t *testing.T) {
			f, dir := mountFUSE(t, hostile.Flush)
			r := play(t, c.role, filepath.Join(dir, "file"))
			if c.hangs {
				waitFor(t, "a program hangs in closing the file", func() bool { return f.Stuck(hostile.Flush) > 0 })
				select {
				case line := <-r.lines:
					t.Errorf("a program that os/exec started while closing hangs has %q", line)
				default:
				}
			} else {
				if line := r.line(); line != "ended" {
					t.Errorf("the program said %q, want that it ended", line)
				}
				if n := f.Stuck(hostile.Flush); n != 0 {
					t.Errorf("the file has been closed %d times; the program was to have no copy of it", n)
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			r.end()
		})
	}
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for begun := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatalf("in vain waited until %s", what)
		}
	}
}

// The ids that the process takes (setuid(2), of all threads) are those of the programs, too.
func TestProgramHasTheProcessesIDs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: to take other ids")
	}
	r := play(t, "changes its ids")
	if groups, uid := r.line(), r.line(); groups != "54321 12345" || uid != "54321" {
		t.Errorf("the program has groups %s and uid %s, want 54321 12345 and 54321", groups, uid)
	}
	r.end()
}

func TestProgramHasOnlyTheDescriptorsOfItsOrder(t *testing.T) {
	r := play(t, "has open descriptors")
	if got := r.line(); got != "0 1 2 3" {
		t.Errorf("the program has descriptors %s, want 0 1 2 and 3, by which it lists them", got)
	}
	if got, want := r.line(), "0 1 2 anon_inode:[eventfd] anon_inode:[eventpoll] socket"; got != want {
		t.Errorf("the thread has %s, want %s", got, want)
	}
	r.end()
}

// What /proc/PID/fd and pidfd_getfd(2) show of a process is the main thread's.
func TestMainThreadStaysWithTheProcess(t *testing.T) {
	r := play(t, "has only its main thread to run on")
	if got := r.line(); got != "true" {
		t.Error("the main thread has not the process's descriptors any more")
	}
	r.end()
}

func TestStartWithoutDescriptorsToSpare(t *testing.T) {
	r := play(t, "has none to spare")
	for _, want := range []string{"too many open files", "RLIMIT_NOFILE", "as before"} {
		if got := r.line(); !strings.Contains(got, want) {
			t.Errorf("got %q, want it to say %q", got, want)
		}
	}
	r.end()
}

func TestTableWithoutTheSystemCalls(t *testing.T) {
	r := play(t, "may not")
	if got := r.line(); got != "[0 1 2]" {
		t.Errorf("without close_range the thread has descriptors %s, want [0 1 2]", got)
	}
	if got := r.line(); !strings.Contains(got, "operation not permitted") {
		t.Errorf("with neither close_range nor unshare it says %q, want that it may not", got)
	}
	r.end()
}

// Timers and collections use the runtime's descriptors on whatever thread runs, this one too.
func TestStartAmongTimersAndCollections(t *testing.T) {
	if err := launch.Prepare(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for range 4 {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Microsecond):
					runtime.GC()
				}
			}
		})
	}
	var starts sync.WaitGroup
	for i := range 4 {
		starts.Go(func() {
			for j := range 25 {
				want := fmt.Sprintf("%d %d\n", i, j)
				if got, err := runProgram("/bin/echo", fmt.Sprint(i), fmt.Sprint(j)); got != want || err != nil {
					t.Errorf("the program said %q, %v, want %q", got, err, want)
				}
			}
		})
	}
	starts.Wait()
	close(stop)
	busy.Wait()
}

func TestStartThatCantBe(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pidFD := 0
	for _, c := range []struct {
		name  string
		path  string
		files []int
		sys   *syscall.SysProcAttr
		want  error
	}{
		{"no program", "/nonexistent", nil, nil, unix.ENOENT},
		{"a descriptor that is none", "/bin/true", []int{1 << 20}, nil, unix.EBADF},
		{"a file, whose closing may hang", "/bin/true", []int{int(file.Fd())}, nil, unix.EINVAL},
		{"too many descriptors", "/bin/true", make([]int, launch.MostFiles+1), nil, unix.EINVAL},
		{"Pdeathsig", "/bin/true", nil, &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}, unix.EINVAL},
		{"PidFD", "/bin/true", nil, &syscall.SysProcAttr{PidFD: &pidFD}, unix.EINVAL},
		{"Ptrace", "/bin/true", nil, &syscall.SysProcAttr{Ptrace: true}, unix.EINVAL},
		{"UseCgroupFD", "/bin/true", nil, &syscall.SysProcAttr{UseCgroupFD: true}, unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			pid, err := launch.Start(c.path, []string{c.path}, nil, c.files, c.sys)
			if !errors.Is(err, c.want) || pid != 0 {
				t.Errorf("Start returned %d, %v, want %v", pid, err, c.want)
			}
			if out, err := runProgram("/bin/echo", "goes on"); out != "goes on\n" || err != nil {
				t.Errorf("the next program said %q, %v", out, err)
			}
		})
	}
}
