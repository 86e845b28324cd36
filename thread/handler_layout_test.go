//go:build amd64 || arm64

package thread

import (
	_ "embed"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:embed handler_linux_amd64.s
var amd64Source string

//go:embed handler_linux_arm64.s
var arm64Source string

// definitions returns the numbers that assembly defines by name.
func definitions(t *testing.T, source string) map[string]uintptr {
	t.Helper()
	defined := make(map[string]uintptr)
	for line := range strings.Lines(source) {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "#define" {
			continue
		}
		n, err := strconv.ParseUint(words[2], 0, 32)
		if err != nil {
			t.Fatalf("%q does not define a number: %v", line, err)
		}
		defined[words[1]] = uintptr(n)
	}
	return defined
}

func TestHandlerKnowsTheLayout(t *testing.T) {
	var (
		s slot
		r record
		q queuedSignal
	)
	layout := map[string]uintptr{
		"SLOT_SIZE":     slotSize,
		"SLOT_TID":      unsafe.Offsetof(s.tid),
		"SLOT_STATE":    unsafe.Offsetof(s.state),
		"SLOT_WANT":     unsafe.Offsetof(s.want),
		"SLOT_HEARD":    unsafe.Offsetof(s.heard),
		"SLOT_CHANGED":  unsafe.Offsetof(s.changed),
		"REC_DONE":      unsafe.Offsetof(r.done),
		"REC_NGROUPS":   unsafe.Offsetof(r.ngroups),
		"REC_GROUPS":    unsafe.Offsetof(r.groups),
		"REC_GID":       unsafe.Offsetof(r.gid),
		"REC_UID":       unsafe.Offsetof(r.uid),
		"REC_CAPHEADER": unsafe.Offsetof(r.header),
		"REC_CAPRAISED": unsafe.Offsetof(r.raised),
		"REC_CAPSCOPE":  unsafe.Offsetof(r.scope),
		"STATE_IN":      uintptr(slotIn),
		"SI_VALUE":      unsafe.Offsetof(q.value),
		"STOP_STATUS":   StopStatus,
	}
	// As in the kernel's tables: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
	for _, arch := range []struct {
		name, source string
		calls        map[string]uintptr
	}{
		{"amd64", amd64Source, map[string]uintptr{
			"SYS_write": 1, "SYS_rt_sigreturn": 15, "SYS_getpid": 39, "SYS_setgroups": 116, "SYS_setresuid": 117,
			"SYS_setresgid": 119, "SYS_capset": 126, "SYS_gettid": 186, "SYS_exit_group": 231,
		}},
		{"arm64", arm64Source, map[string]uintptr{
			"SYS_write": 64, "SYS_rt_sigreturn": 139, "SYS_getpid": 172, "SYS_setgroups": 159, "SYS_setresuid": 147,
			"SYS_setresgid": 149, "SYS_capset": 91, "SYS_gettid": 178, "SYS_exit_group": 94,
		}},
	} {
		t.Run(arch.name, func(t *testing.T) {
			got := definitions(t, arch.source)
			for _, want := range []map[string]uintptr{layout, arch.calls} {
				for name, n := range want {
					if d, ok := got[name]; !ok || d != n {
						t.Errorf("the assembly has %s as %d (defined: %v), want %d", name, d, ok, n)
					}
				}
			}
			if len(got) != len(layout)+len(arch.calls) {
				t.Errorf("the assembly defines %d numbers, and this test knows of %d", len(got), len(layout)+len(arch.calls))
			}
			if arch.name != runtime.GOARCH {
				return
			}
			for name, n := range map[string]uintptr{
				"SYS_write": unix.SYS_WRITE, "SYS_rt_sigreturn": unix.SYS_RT_SIGRETURN, "SYS_getpid": unix.SYS_GETPID,
				"SYS_setgroups": unix.SYS_SETGROUPS, "SYS_setresuid": unix.SYS_SETRESUID, "SYS_setresgid": unix.SYS_SETRESGID,
				"SYS_capset": unix.SYS_CAPSET, "SYS_gettid": unix.SYS_GETTID, "SYS_exit_group": unix.SYS_EXIT_GROUP,
			} {
				if got[name] != n {
					t.Errorf("the assembly has %s as %d, and on this machine it is %d", name, got[name], n)
				}
			}
		})
	}
}

func TestStructuresAreAsLargeAsTheKernels(t *testing.T) {
	if size := unsafe.Sizeof(slot{}); size != slotSize {
		t.Errorf("a slot has %d bytes, want %d", size, slotSize)
	}
	if size := unsafe.Sizeof(queuedSignal{}); size != 128 {
		t.Errorf("siginfo_t has %d bytes here, and 128 in the kernel", size)
	}
	if size := unsafe.Sizeof(kernelAction{}); size != 32 {
		t.Errorf("the kernel's sigaction has %d bytes here, and 32 in the kernel", size)
	}
	if recordSize%4 != 0 || ordinary < 32 {
		t.Errorf("after a record's %d bytes there is room for %d groups", recordSize, ordinary)
	}
}

// TestHandlerIsInstalledAsItMustBe asks the kernel: the assembly relies on each of the flags, and on all signals being blocked.
func TestHandlerIsInstalledAsItMustBe(t *testing.T) {
	if err := Following(); err != nil {
		t.Fatal(err)
	}
	act, err := currentAction()
	if err != nil {
		t.Fatal(err)
	}
	const flags = actSiginfo | actOnStack | actRestart | actRestorer
	if act.handler != handlerAddress() || act.flags != flags || act.restorer != restorerAddress() {
		t.Errorf("signal 34 has handler %#x, flags %#x and restorer %#x, want %#x, %#x and %#x",
			act.handler, act.flags, act.restorer, handlerAddress(), flags, restorerAddress())
	}
	// The kernel leaves SIGKILL and SIGSTOP out.
	if act.mask|1<<(syscall.SIGKILL-1)|1<<(syscall.SIGSTOP-1) != ^uint64(0) {
		t.Errorf("signal 34 is handled with only the signals %#x blocked", act.mask)
	}
}
