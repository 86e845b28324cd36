package thread_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/thread"
	"github.com/guise-project/guise/token"
)

// The runtime never ends the first thread, which tests must not spoil.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	playRole()
	os.Exit(leftover.Main(m))
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("changing ids takes root")
	}
}

func mustToken(t *testing.T, uid, gid uint32, groups ...uint32) *token.Token {
	t.Helper()
	tok, err := token.FromIDs(uid, gid, groups)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// status returns the lines of this thread's status that Enter and Leave are about.
func status(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Cpus_allowed":
			kept = append(kept, name+"="+strings.Join(strings.Fields(value), " "))
		}
	}
	return strings.Join(kept, "\n")
}

func field(t *testing.T, name string) string {
	t.Helper()
	for line := range strings.Lines(status(t)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			return value
		}
	}
	t.Fatalf("no %s in /proc/thread-self/status", name)
	return ""
}

// server is how the thread is before it wears anything.
type server struct {
	name string
	make func(t *testing.T)
}

func mustDo(t *testing.T, what string, e syscall.Errno) {
	t.Helper()
	if e != 0 {
		t.Fatalf("%s: %v", what, e)
	}
}

func setEffective(t *testing.T, change func(token.CapSet) token.CapSet) {
	t.Helper()
	sets, e := capability.Get()
	mustDo(t, "capget", e)
	sets.Effective = change(sets.Effective)
	mustDo(t, "capset", sets.Set())
}

// unprivileged makes the thread that of a service of uid 61010 with the given capabilities.
func unprivileged(t *testing.T, caps token.CapSet) {
	t.Helper()
	_, _, e := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0)
	mustDo(t, "prctl(PR_SET_KEEPCAPS)", e)
	_, _, e = syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
	mustDo(t, "setgroups", e)
	_, _, e = syscall.RawSyscall(unix.SYS_SETRESGID, 61010, 61010, 61010)
	mustDo(t, "setresgid", e)
	_, _, e = syscall.RawSyscall(unix.SYS_SETRESUID, 61010, 61010, 61010)
	mustDo(t, "setresuid", e)
	mustDo(t, "capset", capability.Sets{Effective: caps, Permitted: caps}.Set())
}

const switching = token.CapSet(1<<token.CapSetuid | 1<<token.CapSetgid)

var servers = []server{
	{"root", func(*testing.T) {}},
	{"root with a lowered effective set", func(t *testing.T) {
		setEffective(t, func(s token.CapSet) token.CapSet { return s &^ (1 << 1) })
	}},
	{"root with NO_SETUID_FIXUP", func(t *testing.T) {
		_, _, e := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, 1<<2, 0)
		mustDo(t, "prctl(PR_SET_SECUREBITS)", e)
	}},
	{"a service with CAP_SETUID and CAP_SETGID", func(t *testing.T) { unprivileged(t, switching) }},
	{"a service with CAP_DAC_OVERRIDE too", func(t *testing.T) { unprivileged(t, switching|1<<1) }},
	{"a service with lowered effective capabilities", func(t *testing.T) {
		unprivileged(t, switching|1<<1)
		setEffective(t, func(token.CapSet) token.CapSet { return switching })
	}},
}

// onThread runs f on a thread of its own that ends with it.
func onThread(t *testing.T, s server, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		s.make(t)
		f()
	}()
	<-done
}

func TestWearingChangesAllThatTheKernelDecidesBy(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("", "guise-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "secret") // nobody's but root's
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			onThread(t, s, func() {
				before := status(t)
				var w thread.Worn
				if err := w.Enter(mustToken(t, 61001, 61002, 61003, 61004)); err != nil {
					t.Errorf("Enter: %v", err)
					return
				}
				for name, want := range map[string]string{"Groups": "61003 61004", "CapEff": "0000000000000000"} {
					if got := field(t, name); got != want {
						t.Errorf("in the scope %s is %s, want %s", name, got, want)
					}
				}
				if ids := field(t, "Uid") + "/" + field(t, "Gid"); strings.Fields(ids)[1] != "61001" || !strings.HasSuffix(ids, "61002") {
					t.Errorf("in the scope the ids are %s, want effective uid 61001 and gid 61002", ids)
				}
				if _, err := os.Open(secret); !errors.Is(err, os.ErrPermission) {
					t.Errorf("in the scope of uid 61001 root's file could be opened: %v", err)
				}
				f, err := os.Create(filepath.Join(dir, strings.ReplaceAll(s.name, " ", "-")))
				if err != nil {
					t.Errorf("making a file in the scope: %v", err)
				} else {
					info, _ := f.Stat()
					if st := info.Sys().(*syscall.Stat_t); st.Uid != 61001 || st.Gid != 61002 {
						t.Errorf("a file made in the scope belongs to %d:%d, want 61001:61002", st.Uid, st.Gid)
					}
					f.Close()
				}
				if err := w.Leave(); err != nil {
					t.Errorf("Leave: %v", err)
				}
				if after := status(t); after != before {
					t.Errorf("leaving did not restore the thread. Before:\n%s\nafter:\n%s", before, after)
				}
			})
		})
	}
}

func TestNestedScopesAreLeftOneByOne(t *testing.T) {
	needRoot(t)
	tokens := []*token.Token{
		mustToken(t, 61001, 61001, 61101),
		mustToken(t, 0, 0),
		mustToken(t, 61002, 61002),
		mustToken(t, 61002, 61002),
		mustToken(t, 0, 61003, 61103),
	}
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			onThread(t, s, func() {
				isRoot := os.Geteuid() == 0
				var worn []*thread.Worn
				states := []string{status(t)}
				for _, tok := range tokens {
					if tok.UID() == 0 && !isRoot {
						continue
					}
					w := new(thread.Worn)
					if err := w.Enter(tok); err != nil {
						t.Errorf("entering a scope of %s: %v", tok, err)
						return
					}
					if thread.Current() != w {
						t.Errorf("in the scope of %s Current is not what was entered", tok)
					}
					if got := field(t, "Uid"); strings.Fields(got)[1] != strings.Fields(tok.String())[0] && tok.UID() != 0 {
						t.Errorf("in the scope of %s the uids are %s", tok, got)
					}
					worn = append(worn, w)
					states = append(states, status(t))
				}
				for i := len(worn) - 1; i >= 0; i-- {
					if err := worn[i].Leave(); err != nil {
						t.Errorf("Leave: %v", err)
					}
					if got := status(t); got != states[i] {
						t.Errorf("after leaving scope %d the thread is\n%s\nwant it as before:\n%s", i+1, got, states[i])
					}
				}
				if thread.Current() != nil {
					t.Error("outside all scopes Current is not nil")
				}
			})
		})
	}
}

func TestServerThatIsNotRoot(t *testing.T) {
	needRoot(t)
	service := server{"a service", func(t *testing.T) { unprivileged(t, switching) }}
	plain := server{"without privilege", func(t *testing.T) { unprivileged(t, 0) }}
	withoutWayBack := server{"set-user-ID root", func(t *testing.T) {
		_, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, 61010, 0, 61010)
		mustDo(t, "setresuid", e)
	}}
	onlySetuid := server{"only CAP_SETUID", func(t *testing.T) { unprivileged(t, 1<<token.CapSetuid) }}
	for _, test := range []struct {
		server
		token *token.Token
		want  error
	}{
		{service, mustToken(t, 0, 0), thread.ErrPrivilege},
		{plain, mustToken(t, 61001, 61001), thread.ErrPrivilege},
		{onlySetuid, mustToken(t, 61001, 61010), thread.ErrPrivilege},
		{plain, mustToken(t, 61010, 61010), nil},
		{plain, mustToken(t, 61010, 61010, 61011), thread.ErrPrivilege},
		{withoutWayBack, mustToken(t, 61001, 61001), thread.ErrPrivilege},
		{service, mustToken(t, 61001, 61001).Restrict(token.Statement{Level: token.Identification, Capabilities: token.AllCapabilities}), token.ErrLevel},
		{service, mustToken(t, 65534, 61001), token.ErrNotWearable},
		{service, mustToken(t, 61001, 61001, 65534), token.ErrNotWearable},
		{service, new(token.Token), token.ErrNotWearable},
		{service, nil, token.ErrNotWearable},
	} {
		t.Run(test.name+" as "+test.token.String(), func(t *testing.T) {
			onThread(t, test.server, func() {
				before := status(t)
				var w thread.Worn
				err := w.Enter(test.token)
				if !errors.Is(err, test.want) {
					t.Errorf("entering a scope of %s gives %v, want %v", test.token, err, test.want)
				}
				if err == nil {
					if got := field(t, "CapEff"); got != "0000000000000000" {
						t.Errorf("effective capabilities in the scope are %s, want none", got)
					}
					err = w.Leave()
					if err != nil {
						t.Errorf("Leave: %v", err)
					}
				}
				if after := status(t); after != before {
					t.Errorf("the thread is not as before:\n%s\nbut\n%s", before, after)
				}
			})
		})
	}
}

func TestRootClientHasNoMoreThanTheServer(t *testing.T) {
	needRoot(t)
	lowered := server{"root with a lowered effective set", func(t *testing.T) {
		setEffective(t, func(s token.CapSet) token.CapSet { return s &^ (1 << 1) })
	}}
	client := mustToken(t, 0, 0).Restrict(token.Statement{Capabilities: token.Capabilities{Permitted: token.AllCaps, Effective: 1<<1 | 1<<2 | switching}})
	onThread(t, lowered, func() {
		var w thread.Worn
		if err := w.Enter(client); err != nil {
			t.Error(err)
			return
		}
		sets, _ := capability.Get()
		if want := switching | 1<<2; sets.Effective != want {
			t.Errorf("a root client with dac_override, dac_read_search, setuid and setgid has %v in the scope of a server without dac_override, want %v", sets.Effective, want)
		}
		if err := w.Leave(); err != nil {
			t.Error(err)
		}
	})
}

// TestClientReschedulesTheThread has what a client of the same uid can do to the thread that wears it.
func TestClientReschedulesTheThread(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		name   string
		server server
		do     func(t *testing.T)
		limit  uint64 // RLIMIT_NICE: 20 is what lets a thread come back to nice value 0
		want   bool   // that it can be restored
	}{
		{"nice value, root server", servers[0], renice, 0, true},
		{"nice value, root server with a lowered effective set", lowered, renice, 0, true},
		{"CPUs, root server", servers[0], repin, 0, true},
		{"policy, root server", servers[0], idle, 0, true},
		{"policy of children, root server", servers[0], resetOnFork, 0, true},
		{"slice, root server", servers[0], shortSlice, 0, true},
		{"CPUs, service", servers[3], repin, 0, true},
		{"slice, service", servers[3], shortSlice, 0, true},
		{"nice value, service without CAP_SYS_NICE", servers[3], renice, 0, false},
		{"policy, service without CAP_SYS_NICE", servers[3], idle, 0, false},
		{"nice value, service with LimitNICE=+0", servers[3], renice, 20, true},
		{"policy, service with LimitNICE=+0", servers[3], idle, 20, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var left error
			var before, after string
			limitNice(t, test.limit)
			onThread(t, test.server, func() {
				before = scheduling(t)
				var w thread.Worn
				if err := w.Enter(mustToken(t, 61001, 61001)); err != nil {
					t.Error(err)
					return
				}
				test.do(t)
				if scheduling(t) == before {
					t.Errorf("the scheduling did not change, so this test shows nothing: %s", before)
				}
				left = w.Leave()
				after = scheduling(t)
			})
			if test.want && (left != nil || after != before) {
				t.Errorf("leaving gives %v and scheduling %s, want %s restored", left, after, before)
			}
			if !test.want && left == nil {
				t.Errorf("leaving gives no error, though the scheduling stays %s instead of %s", after, before)
			}
		})
	}
}

var lowered = server{"root without CAP_SYS_NICE in effect", func(t *testing.T) {
	setEffective(t, func(s token.CapSet) token.CapSet { return s &^ (1 << unix.CAP_SYS_NICE) })
}}

// limitNice sets how high an unprivileged thread may come back, until the test ends.
func limitNice(t *testing.T, limit uint64) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NICE, &before); err != nil {
		t.Fatal(err)
	}
	err := unix.Setrlimit(unix.RLIMIT_NICE, &unix.Rlimit{Cur: limit, Max: max(limit, before.Max)})
	if err == unix.EPERM {
		t.Skip("raising RLIMIT_NICE takes CAP_SYS_RESOURCE")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NICE, &before) })
}

func renice(t *testing.T) {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 19); err != nil {
		t.Error(err)
	}
}

func repin(t *testing.T) {
	var one, now unix.CPUSet
	if err := unix.SchedGetaffinity(0, &now); err != nil || now.Count() < 2 {
		t.Skip("there is only one CPU to run on")
	}
	for cpu := range 1024 {
		if now.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Error(err)
	}
}

func idle(t *testing.T) {
	setAttr(t, func(a *unix.SchedAttr) { a.Policy = unix.SCHED_IDLE })
}

func resetOnFork(t *testing.T) {
	setAttr(t, func(a *unix.SchedAttr) { a.Flags |= unix.SCHED_FLAG_RESET_ON_FORK })
}

func shortSlice(t *testing.T) {
	if setAttr(t, func(a *unix.SchedAttr) { a.Runtime = 100_000 }).Runtime == 0 {
		t.Skip("this kernel has no slices of threads' own")
	}
}

func setAttr(t *testing.T, change func(*unix.SchedAttr)) (before unix.SchedAttr) {
	attr, err := unix.SchedGetAttr(0, 0)
	if err == nil {
		before = *attr
		change(attr)
		err = unix.SchedSetAttr(0, attr, 0)
	}
	if err != nil {
		t.Error(err)
	}
	return before
}

func scheduling(t *testing.T) string {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Error(err)
		return ""
	}
	return fmt.Sprintf("%s %+v", field(t, "Cpus_allowed"), *attr)
}

// TestClientSetsWhatServiceCannotTakeOff: nothing is lost by that, so it must be no reason to give the thread up.
func TestClientSetsWhatServiceCannotTakeOff(t *testing.T) {
	needRoot(t)
	onThread(t, servers[3], func() {
		for range 2 {
			if err := scope(func() error { resetOnFork(t); shortSlice(t); return nil }); err != nil {
				t.Errorf("a service can't take SCHED_FLAG_RESET_ON_FORK off its thread, and has to live with it: %v", err)
			}
			if attr, err := unix.SchedGetAttr(0, 0); err != nil || attr.Runtime == 100_000 {
				t.Errorf("after the scope the slice is the client's, beside the flag that stays (%v)", err)
			}
		}
	})
}

// TestScopeOfOtherGroupsAloneIsLeft has none of the capabilities that it takes to get back.
func TestScopeOfOtherGroupsAloneIsLeft(t *testing.T) {
	needRoot(t)
	plain, err := token.FromIDs(uint32(os.Geteuid()), uint32(os.Getegid()), []uint32{61003})
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	var w thread.Worn
	if err := w.Enter(plain.Restrict(token.Statement{})); err != nil {
		t.Fatal(err)
	}
	inside, _ := unix.Getgroups()
	if err := w.Leave(); err != nil {
		t.Error(err)
	}
	after, _ := os.ReadFile("/proc/thread-self/status")
	if len(inside) != 1 || inside[0] != 61003 || credentialLines(after) != credentialLines(before) {
		t.Errorf("in the scope the groups were %v; afterwards the thread is\n%sbefore it was\n%s", inside, credentialLines(after), credentialLines(before))
	}
}

func credentialLines(status []byte) string {
	var lines strings.Builder
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Uid") || strings.HasPrefix(line, "Gid") || strings.HasPrefix(line, "Groups") || strings.HasPrefix(line, "Cap") {
			lines.WriteString(line)
		}
	}
	return lines.String()
}
