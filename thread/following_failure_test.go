//go:build amd64 || arm64

package thread_test

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
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// The roles in which the process has to end, by what it says.
var (
	endingInHandler = map[string]func(){
		"capset fails in the handler":            func() { followAnd(func(w *thread.Worn) { deny(unix.SYS_CAPSET); changeTo(w, 61002) }) },
		"setgroups fails in the handler":         func() { followAnd(func(w *thread.Worn) { deny(unix.SYS_SETGROUPS); changeTo(w, 61002) }) },
		"setresgid fails in the handler":         func() { followAnd(func(w *thread.Worn) { deny(unix.SYS_SETRESGID); changeTo(w, 61002) }) },
		"setresuid fails in the handler":         func() { followAnd(func(w *thread.Worn) { deny(unix.SYS_SETRESUID); changeTo(w, 61002) }) },
		"the first capset fails in the handler":  func() { followServer(func(w *thread.Worn) { denyCapset(thread.RaisedOffset); changeTo(w, 61002) }) },
		"the last capset fails in the handler":   func() { followAnd(func(w *thread.Worn) { denyCapset(thread.ScopeOffset); changeTo(w, 61002) }) },
		"the callback gave its capabilities up":  func() { followAnd(func(w *thread.Worn) { capability.Sets{}.Set(); changeTo(w, 61002) }) },
		"setresgid fails, changed by another":    func() { followAnd(func(w *thread.Worn) { deny(unix.SYS_SETRESGID); changeElsewhere(w) }) },
		"setresgid fails when it is let through": func() { followAnd(failWhenUnblocked) },
	}
	endingInUnpark = map[string]func(){
		"capset fails in unpark":          func() { nestAnd(func() { deny(unix.SYS_CAPSET) }) },
		"setgroups fails in unpark":       func() { nestAnd(func() { deny(unix.SYS_SETGROUPS) }) },
		"setresgid fails in unpark":       func() { nestAnd(func() { deny(unix.SYS_SETRESGID) }) },
		"setresuid fails in unpark":       func() { nestAnd(func() { deny(unix.SYS_SETRESUID) }) },
		"the last capset fails in unpark": func() { nestAnd(func() { denyCapset(thread.ScopeOffset) }) },
	}
	endingOnWrongThread = map[string]func(){
		"unlock after a change": func() { followAnd(func(w *thread.Worn) { changeTo(w, 61002); moveToAnotherThread() }) },
		"unlock after a change and back": func() {
			followAnd(func(w *thread.Worn) { changeTo(w, 61002); changeTo(w, 61001); moveToAnotherThread() })
		},
		"change after unlocking":            func() { followAnd(func(w *thread.Worn) { moveToAnotherThread(); changeTo(w, 61002) }) },
		"unlock in a scope of the server's": func() { followServer(func(w *thread.Worn) { changeTo(w, 61001); moveToAnotherThread() }) },
	}
	endingWithoutSignal = map[string]func(){
		"the signal can't be sent": func() {
			followAnd(func(w *thread.Worn) { denyAll(unix.SYS_RT_TGSIGQUEUEINFO); changeTo(w, 61002); select {} })
		},
	}
	// These go on, and print only what is wrong.
	goingOn = map[string]func(){
		"no signals may be queued":       withoutSignals,
		"no signals may be queued later": withoutSignalsLater,
		"signal 34 is taken before":      signalTakenBefore,
		"signal 34 is ignored before":    signalIgnoredBefore,
		"signal 34 is taken after":       signalTakenAfter,
		"signals can't be sent by seccomp": func() {
			denyAll(unix.SYS_RT_TGSIGQUEUEINFO)
			cannotFollow("rt_tgsigqueueinfo: operation not permitted")
		},
		"setgroups is refused":              func() { denyAll(unix.SYS_SETGROUPS); cannotChange("setgroups: operation not permitted") },
		"setresgid is refused":              func() { denyAll(unix.SYS_SETRESGID); cannotChange("setresgid: operation not permitted") },
		"setresuid is refused":              func() { denyAll(unix.SYS_SETRESUID); cannotChange("setresuid: operation not permitted") },
		"capset is refused":                 func() { denyAll(unix.SYS_CAPSET); cannotChange("capset: operation not permitted") },
		"signal 34 is blocked":              func() { thread.Block(true); cannotFollow("did not arrive") },
		"the program has musl in it":        withMusl,
		"entering fails half-way":           enterHalfWay,
		"changes in an unfollowable server": func() { thread.TakeSignal(1); cannotFollow("signal 34 is taken") },
	}
)

func init() {
	for _, more := range []map[string]func(){endingInHandler, endingInUnpark, endingOnWrongThread, endingWithoutSignal, goingOn, {"send strays": sendStrays, "fork elsewhere": forkElsewhere}} {
		maps.Copy(roles, more)
	}
}

func someone(uid uint32) *token.Token {
	t, err := token.FromIDs(uid, uid+personGID, []uint32{uid + personGroup})
	if err != nil {
		panic(err)
	}
	return t
}

// wrong is for roles: it prints what should not be.
func wrong(format string, args ...any) { fmt.Printf("wrong: "+format+"\n", args...) }

func uidNow() uint32 {
	uid, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
	return uint32(uid)
}

func mustEnter(uid uint32) *thread.Worn {
	w := &thread.Worn{Follow: true}
	if err := w.Enter(someone(uid)); err != nil {
		wrong("entering: %v", err)
		os.Exit(3)
	}
	return w
}

func followAnd(do func(w *thread.Worn)) {
	if err := thread.Following(); err != nil {
		wrong("%v", err)
		os.Exit(3)
	}
	w := mustEnter(61001)
	do(w)
	fmt.Println("the scope ran on")
	fmt.Println("leaving:", w.Leave())
}

// followServer begins with a root client that has all that the server has.
func followServer(do func(w *thread.Worn)) {
	w := &thread.Worn{Follow: true}
	t, err := token.FromIDs(0, 0, nil)
	if err == nil {
		err = w.Enter(t)
	}
	if err != nil {
		wrong("entering: %v", err)
		os.Exit(3)
	}
	do(w)
	fmt.Println("the scope ran on")
	fmt.Println("leaving:", w.Leave())
}

func changeTo(w *thread.Worn, uid uint32) {
	if err := w.Change(someone(uid)); err != nil {
		wrong("changing: %v", err)
	}
}

// changeElsewhere changes the calling thread from another, which makes no difference to what it runs next.
func changeElsewhere(w *thread.Worn) {
	var changed atomic.Bool
	go func() { changeTo(w, 61002); changed.Store(true) }()
	for !changed.Load() {
		syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		runtime.Gosched()
	}
	arrive()
}

func failWhenUnblocked(w *thread.Worn) {
	thread.Block(true)
	changeTo(w, 61002)
	deny(unix.SYS_SETRESGID)
	if uidNow() != 61001 {
		wrong("the thread is %d with the signal blocked", uidNow())
	}
	thread.Block(false)
}

// nestAnd lets the inner scope's own leaving do nothing, so that what fails is the outer's.
func nestAnd(do func()) {
	followAnd(func(outer *thread.Worn) {
		inner := mustEnter(61001)
		changeTo(outer, 61002)
		do()
		if err := inner.Leave(); err != nil {
			wrong("leaving the inner scope: %v", err)
		}
	})
}

// denyCapset makes those capset(2) fail whose second argument is at an offset in a page.
func denyCapset(offset uint32) {
	install(0, []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: unix.SYS_CAPSET},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16 + 8}, // the lower half
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 4095},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: offset},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	})
}

// denyAll makes a call fail in all threads.
func denyAll(call uint32) {
	install(unix.SECCOMP_FILTER_FLAG_TSYNC, []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	})
}

func install(flags uintptr, program []unix.SockFilter) {
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if err == nil {
		if _, _, e := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, address(&filter)); e != 0 {
			err = e
		}
	}
	if err != nil {
		fmt.Println("seccomp:", err)
		os.Exit(3)
	}
}

// cannotFollow checks that nothing can be followed for a reason, and that all else works.
func cannotFollow(why string) {
	err := thread.Following()
	if !errors.Is(err, thread.ErrCannotFollow) || !strings.Contains(err.Error(), why) {
		wrong("Following gives %v, want that %s", err, why)
	}
	w := mustEnter(61001)
	if err := w.Change(someone(61002)); !errors.Is(err, thread.ErrCannotFollow) {
		wrong("changing gives %v", err)
	}
	arrive()
	if uidNow() != 61001 {
		wrong("the thread is %d", uidNow())
	}
	inner := mustEnter(61003)
	if uidNow() != 61003 || inner.Token().UID() != 61003 {
		wrong("the thread is %d in an inner scope", uidNow())
	}
	if err := errors.Join(inner.Leave(), w.Leave()); err != nil || uidNow() != 0 {
		wrong("leaving gives %v and uid %d", err, uidNow())
	}
}

// cannotChange has a scope of the server's own ids and groups, for which no call is made, hear of a change.
func cannotChange(why string) {
	server, err := token.Self()
	if err != nil {
		wrong("%v", err)
	}
	w := &thread.Worn{Follow: true}
	if err := w.Enter(server); err != nil {
		wrong("entering: %v", err)
	}
	if err := w.Change(someone(61001)); !errors.Is(err, thread.ErrCannotFollow) {
		wrong("changing gives %v", err)
	}
	arrive()
	if err := w.Leave(); err != nil || uidNow() != 0 {
		wrong("leaving gives %v and uid %d", err, uidNow())
	}
	if err := thread.Following(); !errors.Is(err, thread.ErrCannotFollow) || !strings.Contains(err.Error(), why) {
		wrong("Following gives %v, want that %s", err, why)
	}
}

// limitSignals returns the limit there was. Only the soft one is changed: a scope may raise that again.
func limitSignals(n uint64) (was uint64) {
	var limit unix.Rlimit
	err := unix.Prlimit(0, unix.RLIMIT_SIGPENDING, nil, &limit)
	was, limit.Cur = limit.Cur, n
	if err == nil {
		err = unix.Prlimit(0, unix.RLIMIT_SIGPENDING, &limit, nil)
	}
	if err != nil {
		wrong("prlimit: %v", err)
	}
	return was
}

func withoutSignals() {
	limitSignals(0)
	cannotFollow("rt_tgsigqueueinfo: resource temporarily unavailable")
}

func withoutSignalsLater() {
	followAnd(func(w *thread.Worn) {
		was := limitSignals(0)
		before := runtime.NumGoroutine()
		for i := range uint32(1000) {
			changeTo(w, 61002+i%10)
		}
		arrive()
		if uidNow() != 61001 {
			wrong("the thread is %d, though no signal can be sent", uidNow())
		}
		if now := runtime.NumGoroutine(); now > before+2 {
			wrong("%d goroutines try to send one signal", now-before)
		}
		changeTo(w, 61020)
		limitSignals(was)
		for uidNow() != 61020 {
			runtime.Gosched()
		}
		// And it goes on as ever.
		changeTo(w, 61021)
		if uidNow() != 61021 {
			wrong("the thread is %d after a change, want 61021", uidNow())
		}
		// Leaving, too, makes up for what could not be sent.
		limitSignals(0)
		inner := mustEnter(61021)
		changeTo(w, 61022)
		if err := inner.Leave(); err != nil || uidNow() != 61022 {
			wrong("leaving the inner scope gives %v and uid %d, want 61022", err, uidNow())
		}
		changeTo(w, 61023)
	})
	if uidNow() != 0 {
		wrong("the thread is %d after leaving", uidNow())
	}
}

func signalTakenBefore() {
	thread.TakeSignal(thread.SomeFunction())
	cannotFollow("signal 34 is taken")
}

func signalIgnoredBefore() {
	thread.TakeSignal(1) // SIG_IGN
	cannotFollow("signal 34 is taken")
}

func signalTakenAfter() {
	followAnd(func(w *thread.Worn) {
		thread.Block(true)
		thread.TakeSignal(thread.SomeFunction())
		if err := w.Change(someone(61002)); !errors.Is(err, thread.ErrCannotFollow) || !strings.Contains(fmt.Sprint(err), "taken") {
			wrong("changing gives %v", err)
		}
		if _, ok := thread.TakePending(); ok {
			wrong("a signal was sent to the foreign handler")
		}
		if n := w.Records(); n != 0 || !w.Token().Equal(someone(61001)) {
			wrong("%d records, and the token is %s", n, w.Token())
		}
		thread.Block(false)
	})
	if uidNow() != 0 {
		wrong("the thread is %d after leaving", uidNow())
	}
}

// enterHalfWay takes away what only this token needs, so that the way back is open.
func enterHalfWay() {
	if err := thread.Following(); err != nil {
		wrong("%v", err)
	}
	root, err := token.FromIDs(0, 0, nil)
	if err != nil {
		wrong("%v", err)
	}
	with := token.Capabilities{Permitted: 2, Effective: 2}
	before, _ := capability.Get()
	outer := mustEnter(61001)
	if err := outer.Leave(); err != nil {
		wrong("leaving: %v", err)
	}
	if err := unix.Setgroups(nil); err != nil { // as the token
		wrong("setgroups: %v", err)
	}
	deny(unix.SYS_CAPSET)
	w := &thread.Worn{Follow: true}
	for range 3 {
		if err := w.Enter(root.Restrict(token.Statement{Capabilities: with})); !errors.Is(err, unix.EPERM) {
			wrong("entering gives %v", err)
		}
		if err := w.Change(someone(61001)); !errors.Is(err, thread.ErrCannotFollow) {
			wrong("changing what could not be entered gives %v", err)
		}
		after, _ := capability.Get()
		if uidNow() != 0 || after != before || thread.Current() != nil {
			wrong("the thread is uid %d with %v and wears %v", uidNow(), after, thread.Current())
		}
	}
	if err := w.Enter(someone(61001)); err != nil || w.Slot() != outer.Slot() {
		wrong("entering again: %v, slot %d; the first scope had %d", err, w.Slot(), outer.Slot())
	}
	if err := w.Leave(); err != nil || uidNow() != 0 {
		wrong("leaving: %v, uid %d", err, uidNow())
	}
}

// withMusl has what looks like musl in its memory.
func withMusl() {
	file, err := os.Open(filepath.Join(os.Getenv(dirVariable), "ld-musl-test.so.1"))
	if err == nil {
		_, err = unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
	}
	if err != nil {
		wrong("%v", err)
	}
	cannotFollow("musl")
}

const dirVariable = "GUISE_THREAD_TEST_DIR"

func TestProcessEndsWhereAThreadCannotFollow(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		roles  map[string]func()
		says   string
		runsOn bool // up to the end of the scope
	}{
		{endingInHandler, "guise: the process ends here: a thread's credentials could not be changed as its client's did\n", false},
		{endingInUnpark, "can't follow its client", false},
		{endingOnWrongThread, "guise: the process ends here: the scope of thread", true},
		{endingWithoutSignal, "can't be made to follow its client: rt_tgsigqueueinfo: operation not permitted", false},
	} {
		for _, role := range slices.Sorted(maps.Keys(test.roles)) {
			t.Run(role, func(t *testing.T) {
				out, err := runRole(role)
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != thread.StopStatus {
					t.Errorf("the process ended with %v, want exit status %d; it printed:\n%s", err, thread.StopStatus, out)
				}
				if !strings.Contains(out, test.says) || !strings.Contains(out, "guise: the process ends here:") {
					t.Errorf("the process did not say %q:\n%s", test.says, out)
				}
				for _, never := range []string{"went on", "wrong", "leaving:"} {
					if strings.Contains(out, never) {
						t.Errorf("the process ran on with a foreign thread:\n%s", out)
					}
				}
				if strings.Contains(out, "ran on") != test.runsOn {
					t.Errorf("whether code ran in the scope, which should be %v:\n%s", test.runsOn, out)
				}
			})
		}
	}
}

func TestFollowingThatIsNotToBeHad(t *testing.T) {
	needRoot(t)
	dir := testdir.Open(t, 0o755)
	if err := os.WriteFile(filepath.Join(dir, "ld-musl-test.so.1"), make([]byte, 4096), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv(dirVariable, dir)
	for _, role := range slices.Sorted(maps.Keys(goingOn)) {
		t.Run(role, func(t *testing.T) {
			out, err := runRole(role)
			if err != nil || strings.Contains(out, "wrong") || !strings.Contains(out, "went on") {
				t.Errorf("the process ended with %v and printed:\n%s", err, out)
			}
		})
	}
}
