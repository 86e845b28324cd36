package guise

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
)

// trickedSource is a program that has more rights than who starts it, and does not look where its output goes.
const trickedSource = `
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <grp.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv) {
	const char *does = argc > 1 ? argv[1] : "";
	if (!strcmp(does, "tell")) {
		char line[200];
		FILE *f = fopen("/proc/self/status", "r");
		while (f && fgets(line, sizeof line, f))
			if (!strncmp(line, "CapEff:", 7)) {
				printf("%d %d %d %d", getuid(), geteuid(), getgid(), getegid());
				printf(" %s", strpbrk(line, "0"));
			}
		return 0;
	}
	if (!strcmp(does, "become")) { // all that it can be, as su(1) does
		setgroups(0, NULL);
		if (setresgid(0, 0, 0) || setresuid(0, 0, 0)) {
			if (geteuid() == 0) return 3;
		}
		does = "message";
	}
	if (!strcmp(does, "text")) {
		static const char usage[] = "usage: tricked [options]\n";
		if (write(1, usage, sizeof usage - 1) < 0) return 4;
		if (write(2, usage, sizeof usage - 1) < 0) return 0; // the first may have ended it
		return 0;
	}
	if (!strcmp(does, "message")) {
		char b[4096];
		size_t n = strlen(argv[2]) / 2;
		for (size_t i = 0; i < n; i++) {
			unsigned c;
			sscanf(argv[2] + 2 * i, "%2x", &c);
			b[i] = c;
		}
		return write(1, b, n) < 0 ? 5 : 0;
	}
	if (!strcmp(does, "exec")) {
		execl("/bin/true", "true", NULL);
		return 6;
	}
	if (!strcmp(does, "connect")) { // as a client does of who names it a server
		struct sockaddr_un a = { AF_UNIX };
		int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		memcpy(a.sun_path + 1, argv[2], strlen(argv[2]));
		if (connect(fd, (struct sockaddr *)&a, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(argv[2]))) return 7;
		char c;
		read(0, &c, 1); // until its starter has gone, or closes it
		return 0;
	}
	return 8;
}
`

// trickedProgram is how the program gets its rights.
type trickedProgram struct {
	name, path string
	tells      string // how what it tells begins, started by 61001: real and effective ids, capabilities
}

// trickedPrograms makes them, and skips the test if they can't be had here.
func trickedPrograms(t *testing.T) []trickedProgram {
	t.Helper()
	compiler, err := exec.LookPath("gcc")
	if err != nil {
		t.Skipf("making a program that gets rights takes a C compiler: %v", err)
	}
	dir := testdir.Open(t, 0o755)
	source := filepath.Join(dir, "tricked.c")
	must(os.WriteFile(source, []byte(trickedSource), 0o644))
	first := filepath.Join(dir, "plain")
	if out, err := exec.Command(compiler, "-O", "-w", "-o", first, source).CombinedOutput(); err != nil {
		t.Fatalf("compiling: %v\n%s", err, out)
	}
	binary := must1(os.ReadFile(first))
	// VFS_CAP_REVISION_2 with the effective bit: CAP_SETGID and CAP_SETUID, 6 and 7, permitted.
	capabilities, err := hex.DecodeString("01000002" + "c0000000" + "00000000" + "00000000" + "00000000")
	must(err)
	programs := []trickedProgram{
		{name: "a set-user-ID program", tells: "61001 0 61001 61001 "},
		{name: "a set-group-ID program", tells: "61001 61001 61001 0 "},
		{name: "a program with file capabilities", tells: "61001 61001 61001 61001 00000000000000c0"},
	}
	for i := range programs {
		p := &programs[i]
		p.path = filepath.Join(dir, fmt.Sprint("tricked", i))
		must(os.WriteFile(p.path, binary, 0o755))
		switch i {
		case 0:
			must(os.Chmod(p.path, 0o755|os.ModeSetuid))
		case 1:
			must(os.Chmod(p.path, 0o755|os.ModeSetgid))
		case 2:
			if err := unix.Setxattr(p.path, "security.capability", capabilities, 0); err != nil {
				t.Skipf("giving a program capabilities in %s: %v", dir, err)
			}
		}
		cmd := exec.Command(p.path, "tell")
		cmd.SysProcAttr = asUser(61001, 61001)
		said, err := cmd.Output()
		if err != nil || !strings.HasPrefix(string(said), p.tells) {
			t.Skipf("%s gets no rights in %s, which may be mounted nosuid: it says %q, %v", p.name, dir, said, err)
		}
	}
	return programs
}

// tricks are what the client has such a program do, with a descriptor as its standard input, output and error.
var tricks = []struct {
	name    string
	control bool // the descriptor is the control channel, not the pipe
	args    []string
	says    string // what the server's error says; empty if all stays as it was
	read    string // what the server reads
}{
	{"prints text on the pipe", false, []string{"text"}, "", "usage: tricked [options]\nusage: tricked [options]\n"},
	{"prints an announcement on the pipe", false, []string{"message", hex.EncodeToString([]byte(rawNow(1, 0)))}, "", rawNow(1, 0)},
	{"executes another program with the pipe", false, []string{"exec"}, "", ""},
	{"prints text on the control channel", true, []string{"text"}, "not one of guise's", ""},
	{"prints an announcement on the control channel", true, []string{"message", hex.EncodeToString([]byte(rawNow(1, 0)))}, "without a token socket", ""},
	{"prints a way on the control channel", true, []string{"message", hex.EncodeToString([]byte(rawWay(1)))}, "has to claim", ""},
	{"becomes all that it can and prints a way on the control channel", true, []string{"become", hex.EncodeToString([]byte(rawWay(1)))}, "has to claim", ""},
	{"becomes all that it can and prints an announcement on the control channel", true, []string{"become", hex.EncodeToString([]byte(rawNow(1, 0)))}, "without a token socket", ""},
	{"executes another program with the control channel", true, []string{"exec"}, "", ""},
}

var _ = addRole("tricks a program", func() {
	c := newRawClient()
	c.open()
	c.await()
	fd := c.pipe
	if os.Getenv("GUISE_TEST_CONTROL") != "" {
		fd = c.near
	}
	path, args := os.Getenv("GUISE_TEST_PROGRAM"), strings.Fields(os.Getenv("GUISE_TEST_ARGS"))
	if os.Getenv("GUISE_TEST_ITSELF") != "" {
		for i := range 3 {
			must(unix.Dup3(fd, i, 0))
		}
		must(syscall.Exec(path, append([]string{path}, args...), nil))
	}
	f := os.NewFile(uintptr(must1(unix.Dup(fd))), "given")
	cmd := exec.Command(path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f, f, f
	must(cmd.Run())
})

// TestAttackByProgramsThatGetRights has a client make a program write where it speaks for itself, while the server acts for it.
func TestAttackByProgramsThatGetRights(t *testing.T) {
	needRoot(t, "it makes programs that get rights")
	for _, program := range trickedPrograms(t) {
		for _, trick := range tricks {
			for _, itself := range []bool{false, true} {
				how := "as a child"
				if itself {
					how = "in the client's place"
				}
				t.Run(fmt.Sprintf("%s, %s, %s", program.name, how, trick.name), func(t *testing.T) {
					env := []string{"GUISE_TEST_PROGRAM=" + program.path, "GUISE_TEST_ARGS=" + strings.Join(trick.args, " ")}
					if trick.control {
						env = append(env, "GUISE_TEST_CONTROL=1")
					}
					if itself {
						env = append(env, "GUISE_TEST_ITSELF=1")
					}
					start := func(path string) *rawProcess {
						return startRaw(t, "tricks a program", asUser(61001, 61001, 61101), append(env, "GUISE_TEST_PATH="+path))
					}
					whileAttacked(t, nil, start, anAlice, func(p *rawProcess, server *Conn, in *scopeIn) {
						p.resume()
						if trick.says != "" {
							in.becomes("after the program wrote", aNobody, anAlice)
							p.end()
							says := trick.says
							if !itself && says == "has to claim" {
								says = "sent by process" // which is looked at first
							}
							entriesFail(t, server, says)
							return
						}
						p.end()
						settled(server, in, anAlice)
						if b, err := io.ReadAll(struct{ io.Reader }{server}); string(b) != trick.read || err != nil {
							t.Errorf("the server reads %q, %v, want %q", b, err, trick.read)
						}
						settled(server, in, anAlice)
						if err := server.RunAsClient(func(*Scope) error {
							if now := ownIDs(); now != anAlice {
								t.Errorf("the next scope is %v's", now)
							}
							return nil
						}); err != nil {
							t.Errorf("the next entry: %v", err)
						}
					})
				})
			}
		}
	}
}

var _ = addRole("has a program connect", func() {
	c := newRawClient()
	c.open()
	c.await()
	name := rawAbstract("guise-attack")
	l := rawSocket(unix.AF_UNIX, unix.SOCK_SEQPACKET)
	rawBind(l, name)
	must(unix.Listen(l, 1))
	cmd := exec.Command(os.Getenv("GUISE_TEST_PROGRAM"), "connect", name[1:])
	stdin := must1(cmd.StdinPipe())
	must(cmd.Start())
	accepted, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	must(err)
	cred := must1(unix.GetsockoptUcred(accepted, unix.SOL_SOCKET, unix.SO_PEERCRED))
	if cred.Uid == 61001 && cred.Gid == 61001 {
		panic("the program that connected has no rights")
	}
	if err := c.sayAs(&unix.Ucred{Pid: int32(os.Getpid()), Uid: cred.Uid, Gid: cred.Gid}, rawNow(1, 0), accepted); err != unix.EPERM {
		panic(fmt.Sprint("the kernel lets this process claim ids that it can't take: ", err))
	}
	must(c.sayAs(c.claim(), rawNow(1, 0), accepted))
	c.hear()
	unix.Close(accepted)
	stdin.Close()
	must(cmd.Wait())
	fmt.Println("done")
})

// TestAttackWithAConnectionOfAProgramThatGetsRights has one connect to the client, which hands that connection over as proof.
func TestAttackWithAConnectionOfAProgramThatGetsRights(t *testing.T) {
	needRoot(t, "it makes programs that get rights")
	for _, program := range trickedPrograms(t)[:2] {
		t.Run(program.name, func(t *testing.T) {
			start := func(path string) *rawProcess {
				return startRaw(t, "has a program connect", asUser(61001, 61001, 61101), []string{"GUISE_TEST_PATH=" + path, "GUISE_TEST_PROGRAM=" + program.path})
			}
			whileAttacked(t, nil, start, anAlice, func(p *rawProcess, server *Conn, in *scopeIn) {
				p.resume()
				in.becomes("after the client handed over the program's connection", aNobody, anAlice)
				entriesFail(t, server, "has a name")
				if told := p.end(); told != toldProof+"\ndone" {
					t.Errorf("the client says %q", told)
				}
			})
		})
	}
}
