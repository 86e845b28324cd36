//go:build amd64 || arm64

package thread_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// address is for raw system calls; what it points to must not be on a stack.
func address[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

// disturb has the collector running all the time, and every signal handled that may be, until the returned function is called.
func disturb() (end func()) {
	signals := make(chan os.Signal, 100)
	signal.Notify(signals)
	var over atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !over.Load() {
			runtime.GC()
			select {
			case <-signals:
			default:
			}
		}
	}()
	return func() {
		over.Store(true)
		<-done
		signal.Stop(signals)
	}
}

// office is a place where only whole persons can work: each one's directory lets in nobody but the members of its supplementary
// group, and what is made there is of the person's uid and gid.
type office struct {
	dir     string
	persons []*token.Token
	files   atomic.Uint64
}

func newOffice(t *testing.T, persons int) *office {
	o := &office{dir: testdir.Open(t, 0o755)}
	for i := range uint32(persons) {
		p := person(t, 61001+i)
		dir := o.room(p.UID())
		for _, err := range []error{os.Mkdir(dir, 0o770), os.Chown(dir, 0, int(p.Groups()[0])), os.Chmod(dir, 0o770)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		o.persons = append(o.persons, p)
	}
	return o
}

func (o *office) room(uid uint32) string { return filepath.Join(o.dir, fmt.Sprint(uid)) }

func (o *office) anybody() *token.Token { return o.persons[rand.IntN(len(o.persons))] }

// work makes a file in one of the rooms. One system call goes by one set of credentials, so where it succeeds all must be of one
// person, whoever that is by then.
func (o *office) work(t *testing.T, uid uint32) (made bool) {
	path := filepath.Join(o.room(uid), fmt.Sprint(o.files.Add(1)))
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		if err != unix.EACCES {
			t.Errorf("making a file in the room of %d: %v", uid, err)
		}
		return false
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Uid != uid || st.Gid != uid+personGID {
		t.Errorf("a file in the room of %d was made by uid %d, gid %d (%v): a mixture", uid, st.Uid, st.Gid, err)
	}
	unix.Close(fd)
	_ = unix.Unlink(path) // which somebody else can't
	return true
}

// employ has one thread work in the office, in a scope that is changed again and again from elsewhere. What it is asked and what it
// is in the end has to be as the changes say.
func (o *office) employ(t *testing.T, changes int) (made, asked int) {
	runtime.LockOSThread()
	before := status(t)
	w := enter(t, o.persons[0])
	var question atomic.Pointer[token.Token] // whether the thread is this one, of which Change has returned
	var over atomic.Bool
	last := o.anybody()
	go func() {
		defer over.Store(true)
		for i := range changes {
			to := o.anybody()
			change(t, w, to)
			if i%4 == 0 {
				question.Store(to)
				for question.Load() != nil {
					runtime.Gosched()
				}
			}
		}
		change(t, w, last)
	}()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Error(err)
	}
	buf := make([]byte, 8)
	for !over.Load() {
		if want := question.Load(); want != nil {
			arrive()
			isNow(t, "asked after a change", want, token.AllCaps)
			asked++
			question.Store(nil)
		}
		uid, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
		if o.work(t, uint32(uid)) {
			made++
		}
		for _, call := range []func(int, []byte) (int, error){func(_ int, b []byte) (int, error) { return unix.Write(p[1], b) }, unix.Read} {
			if done, err := call(p[0], buf); done != len(buf) || err != nil {
				t.Errorf("%d bytes through a pipe: %v", done, err)
			}
		}
		// A loop of nothing but raw system calls can hardly be preempted.
		runtime.Gosched()
	}
	arrive()
	isNow(t, "after the last change", last, token.AllCaps)
	unix.Close(p[0])
	unix.Close(p[1])
	leave(t, w)
	if after := status(t); after != before {
		t.Errorf("leaving did not restore the thread. Before:\n%s\nafter:\n%s", before, after)
	}
	return made, asked
}

// employMany is employ on many threads at once.
func (o *office) employMany(t *testing.T, threads, changes int) {
	var wait sync.WaitGroup
	var made, asked atomic.Int64
	for range threads {
		wait.Add(1)
		go func() {
			defer wait.Done()
			m, a := o.employ(t, changes)
			made.Add(int64(m))
			asked.Add(int64(a))
		}()
	}
	wait.Wait()
	if made.Load() == 0 || asked.Load() == 0 {
		t.Errorf("%d files were made and %d questions answered: this shows nothing", made.Load(), asked.Load())
	}
}

func TestBusyThreadsFollowEveryChange(t *testing.T) {
	needFollowing(t)
	defer disturb()()
	changes := 6000
	if raceEnabled {
		changes = 1500
	}
	newOffice(t, 8).employMany(t, 16, changes)
}

// TestManyChangeTheSameThread has goroutines that know nothing of each other change one scope.
func TestManyChangeTheSameThread(t *testing.T) {
	needFollowing(t)
	o := newOffice(t, 8)
	onThread(t, servers[0], func() {
		w := enter(t, o.persons[0])
		var wait sync.WaitGroup
		var over atomic.Bool
		for range 8 {
			wait.Add(1)
			go func() {
				defer wait.Done()
				for range 500 {
					change(t, w, o.anybody())
				}
			}()
		}
		go func() { wait.Wait(); over.Store(true) }()
		for !over.Load() {
			uid, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
			o.work(t, uint32(uid))
			runtime.Gosched()
		}
		arrive()
		isNow(t, "after all changes", w.Token(), token.AllCaps)
		leave(t, w)
	})
}

func TestRecordsThatAreDoneAreUsedAgain(t *testing.T) {
	needFollowing(t)
	onThread(t, servers[0], func() {
		w := enter(t, person(t, 61001))
		for i := range uint32(1000) {
			change(t, w, person(t, 61100+i%7))
			if n := w.Records(); n > 1 {
				t.Errorf("%d records are kept after %d changes, all of which have arrived", n, i+1)
				break
			}
		}
		leave(t, w)
	})
}
