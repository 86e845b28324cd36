package machines_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/guise-project/guise/internal/machines"
	"github.com/guise-project/guise/internal/machinestest"
)

// TestNothingIsLeft looks at this machine before and after there were others on it.
func TestNothingIsLeft(t *testing.T) {
	machinestest.Need(t)
	t.Setenv("TMPDIR", t.TempDir())
	before := look(t)
	n, err := machines.Start(t.Context(), &machines.Config{Accounts: people})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	same(t, "while there are machines", before)
	if _, err := n.Machines[0].Install("/proc/self/exe"); err != nil {
		t.Error(err)
	}
	running := n.Machines[2].CommandAs(context.Background(), "alice", "sleep", "1000")
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.Machines[1].Command(t.Context(), "setsid", "--fork", "sleep", "1000").Run(); err != nil {
		t.Error(err)
	}
	made := tracesOf(t, n.Dir, n.Holders())
	if len(made.namespaces) != 3*5+1 {
		t.Errorf("machines have the namespaces %q, which are %d; want 5 of each machine and 1 of the switch", made.namespaces, len(made.namespaces))
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if err := running.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("a program that ran when its machine was closed: %v", err)
	}
	if err := made.left(); err != nil {
		t.Error(err)
	}
	same(t, "afterwards", before)
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	if err := n.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

// look returns what could be seen of machines on this one, and its files that machines have others of.
func look(t *testing.T) map[string]string {
	t.Helper()
	seen := make(map[string]string)
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		seen["interfaces"] += i.Name + " "
	}
	for _, path := range []string{"/proc/self/mountinfo", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/hosts", "/etc/krb5.conf", "/etc/samba/smb.conf", "/proc/sys/kernel/hostname"} {
		text, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		seen[path] = string(text)
	}
	for _, dir := range []string{"/run/samba", "/var/lib/samba", "/var/lib/samba/private", "/var/cache/samba", "/var/log/samba", "/var/lib/krb5kdc"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		seen[dir] = fmt.Sprint(entries)
	}
	return seen
}

// same fails the test if something that look saw has changed.
func same(t *testing.T, when string, before map[string]string) {
	t.Helper()
	for what, is := range look(t) {
		if was := before[what]; is != was {
			t.Errorf("%s, %s is\n%s\ninstead of\n%s", when, what, is, was)
		}
	}
}

// traces are what a network could leave behind.
type traces struct {
	dir        string
	namespaces []string          // that this process is not in
	processes  map[string]string // in these, and when they began
	when       uint64            // what was looked for
}

var kinds = []string{"mnt", "net", "uts", "ipc", "pid"}

// tracesOf finds the namespaces that processes are in, and all processes in these.
func tracesOf(t *testing.T, dir string, pids []int) traces {
	t.Helper()
	made := traces{dir: dir, processes: make(map[string]string), when: now(t)}
	for _, pid := range pids {
		for _, kind := range kinds {
			ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
			if errors.Is(err, fs.ErrNotExist) {
				continue // the process has ended meanwhile
			}
			if err != nil {
				t.Fatal(err)
			}
			if own, _ := os.Readlink("/proc/self/ns/" + kind); own != ns && !slices.Contains(made.namespaces, ns) {
				made.namespaces = append(made.namespaces, ns)
			}
		}
		made.processes[fmt.Sprint(pid)] = begun(fmt.Sprint(pid))
	}
	for pid := range processes() {
		if made.in(pid) {
			made.processes[pid] = begun(pid)
		}
	}
	return made
}

// left returns an error that tells of what there still is.
func (made traces) left() error {
	var errs []error
	for pid, when := range made.processes {
		if when != "" && begun(pid) == when {
			errs = append(errs, fmt.Errorf("process %s is left", pid))
		}
	}
	for pid, name := range processes() {
		if made.in(pid) {
			errs = append(errs, fmt.Errorf("process %s (%s) is in a machine", pid, name))
		}
		if mounts, _ := os.ReadFile("/proc/" + pid + "/mountinfo"); bytes.Contains(mounts, []byte(made.dir)) {
			errs = append(errs, fmt.Errorf("process %s (%s) has a mount of %s", pid, name, made.dir))
		}
	}
	if _, err := os.Lstat(made.dir); !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("directory %s is left: %v", made.dir, err))
	}
	return errors.Join(errs...)
}

// in reports whether a process, or a thread of it, is in the namespaces. One that began later is not: it may be in others that
// have the same numbers, which are given again.
func (made traces) in(pid string) bool {
	when, err := strconv.ParseUint(begun(pid), 10, 64)
	if err != nil || when > made.when {
		return false
	}
	for _, kind := range kinds {
		links, _ := filepath.Glob("/proc/" + pid + "/task/*/ns/" + kind)
		for _, link := range links {
			if ns, err := os.Readlink(link); err == nil && slices.Contains(made.namespaces, ns) {
				return true
			}
		}
	}
	return false
}

// processes returns all processes and their programs' names.
func processes() map[string]string {
	all := make(map[string]string)
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, path := range names {
		if b, err := os.ReadFile(path); err == nil {
			all[filepath.Base(filepath.Dir(path))] = strings.TrimSpace(string(b))
		}
	}
	return all
}

// begun returns when a process began, or "" if it has ended; a process that nobody has buried yet has.
func begun(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(after)
	if fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}

// now returns the time as begun has it.
func now(t *testing.T) uint64 {
	t.Helper()
	cmd := exec.Command("/bin/cat", "/proc/self/stat")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(out), ") ")
	when, err := strconv.ParseUint(strings.Fields(after)[19], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

// TestNothingIsLeftByOneWhoIsKilled has another process start machines, and kills it.
func TestNothingIsLeftByOneWhoIsKilled(t *testing.T) {
	machinestest.Need(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), role+"=wait", "TMPDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	dir := strings.TrimSpace(line)
	if err != nil || !filepath.IsAbs(dir) {
		t.Fatalf("a process that was to make machines says %q, %v", line, err)
	}
	made := tracesOf(t, dir, descendants(t, cmd.Process.Pid))
	if len(made.namespaces) != 2*5+1 || len(made.processes) < 10 {
		t.Errorf("two machines have the namespaces %q and the processes %v; want 5 of each machine, 1 of the switch, and more processes",
			made.namespaces, made.processes)
	}
	killed := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	until(t, made.left)
	t.Logf("everything was gone after %v", time.Since(killed).Round(time.Millisecond))
}

// descendants returns the process ids of a process's children, of theirs, and so on.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(b)) {
			var child int
			fmt.Sscan(field, &child)
			all = append(append(all, child), descendants(t, child)...)
		}
	}
	return all
}

// TestStartThatFails leaves nothing and says what smbd said.
func TestStartThatFails(t *testing.T) {
	machinestest.Need(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	n, err := machines.Start(t.Context(), &machines.Config{Machines: 1, Extra: map[string]string{"lock directory": "/proc/none"}})
	if err == nil {
		n.Close()
		t.Fatal("machines start without a directory for Samba's locks")
	}
	for _, want := range []string{"smbd on machine1 did not come up", "/proc/none"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := machines.Start(canceled, &machines.Config{Machines: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("starting when the context has ended: %v, %v", n, err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

func TestTwoNetworksAtOnce(t *testing.T) {
	first := start(t, &machines.Config{Machines: 2})
	second := start(t, &machines.Config{Machines: 1, Accounts: people})
	if err := second.Machines[0].Login(t.Context(), "alice", 0); err != nil {
		t.Error(err)
	}
	if err := first.Machines[1].Login(t.Context(), "alice", 0); err == nil {
		t.Error("alice, whom another network has, has logged in")
	}
}
