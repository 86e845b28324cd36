package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/guise-project/guise/examples/internal/stage"
	"github.com/guise-project/guise/internal/testdir"
)

func TestMain(m *testing.M) { os.Exit(stage.Main(m, main)) }

// curl calls the service as a user, and returns the status and what came.
func curl(t *testing.T, pipe string, uid uint32, args ...string) (status, body string) {
	t.Helper()
	program, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed: ", err)
	}
	args = append([]string{"-q", "--silent", "--show-error", "--max-time", "20", "--path-as-is", "--write-out", "\n%{http_code}", "--unix-socket", pipe}, args...)
	out, err := stage.RunProgram(stage.Account{UID: uid}, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndexByte(out, '\n')
	return out[at+1:], out[:at]
}

func TestEverybodyReadsAndWritesAsOneself(t *testing.T) {
	stage.NeedRoot(t)
	for name, account := range stage.Services {
		t.Run(name, func(t *testing.T) {
			dir := testdir.Open(t, 0o1777)
			run := testdir.Open(t, 0o755)
			if err := os.Chown(run, int(account.UID), int(account.UID)); err != nil {
				t.Fatal(err)
			}
			pipe := filepath.Join(run, "pipe")
			outside := testdir.Open(t, 0o755)
			for path, mode := range map[string]os.FileMode{filepath.Join(dir, "roots"): 0o600, filepath.Join(outside, "world"): 0o644} {
				if err := os.WriteFile(path, []byte("secret"), mode); err != nil {
					t.Fatal(err)
				}
			}
			for link, to := range map[string]string{"out": filepath.Join(outside, "world"), "self": "/proc/self/maps"} {
				if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
					t.Fatal(err)
				}
			}
			fifo, search := filepath.Join(dir, "fifo"), filepath.Join(dir, "search")
			if err := errors.Join(syscall.Mkfifo(fifo, 0o666), os.Chmod(fifo, 0o666), os.Mkdir(search, 0o711), os.WriteFile(filepath.Join(search, "world"), nil, 0o644)); err != nil {
				t.Fatal(err)
			}
			stage.Start(t, account, "-pipe", pipe, dir)
			upload := filepath.Join(outside, "world") // readable for curl, whoever that is
			put := func(uid uint32, name, want string) {
				t.Helper()
				if status, body := curl(t, pipe, uid, "-T", upload, "http://files/"+name); status != want {
					t.Errorf("PUT of %s by %d is answered with %s %s, want %s", name, uid, status, body, want)
				}
			}
			get := func(uid uint32, name, want string) {
				t.Helper()
				status, body := curl(t, pipe, uid, "http://files/"+name)
				if got := status; got != want && fmt.Sprint(got, " ", body) != want {
					t.Errorf("GET of %s by %d is answered with %s %s, want %s", name, uid, status, body, want)
				}
			}

			put(61001, "mine", "201")
			if uid, err := stage.Owner(filepath.Join(dir, "mine")); uid != 61001 || err != nil {
				t.Errorf("the file is %d's, %v", uid, err)
			}
			if err := os.Chmod(filepath.Join(dir, "mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			get(61001, "mine", "200 secret")
			if status, _ := curl(t, pipe, 61001, "-C", "3", "-T", upload, "http://files/mine"); status != "400" {
				t.Errorf("a part of a file is answered with %s", status)
			}
			get(61001, "mine", "200 secret")
			get(61002, "mine", "403")
			put(61002, "mine", "403")
			get(61001, "roots", "403")
			put(61001, "roots", "403")
			get(61001, "nothing", "404")
			put(61001, "mine/below", "404")
			get(61001, "", "403")
			get(61001, "fifo", "403")
			put(61001, "fifo", "403") // one that it could open, if somebody read
			get(61001, "search/world", "403")
			get(61001, strings.Repeat("x", 256), "404")
			get(61001, "out", "403")
			get(61001, "self", "403")
			get(61001, "..%2f..%2fetc%2fpasswd", "403")
			if b, err := os.ReadFile(filepath.Join(dir, "mine")); string(b) != "secret" {
				t.Errorf("the file holds %q, %v", b, err)
			}
		})
	}
}

// TestServiceEndsThoughAClientIsSlow has the service wait for an upload that does not end, until it does so no more.
func TestServiceEndsThoughAClientIsSlow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	var c net.Conn
	t.Cleanup(func() { // once the service has ended
		if c != nil {
			c.Close()
		}
	})
	stage.Start(t, stage.Account{UID: uint32(os.Getuid())}, "-pipe", pipe, dir) // fails the test if it ends with an error
	var err error
	if c, err = net.Dial("unix", pipe); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "PUT /slow HTTP/1.1\r\nHost: files\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// The service says that it goes on once it has opened the file, and reads.
	if line, err := bufio.NewReader(c).ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("got %q, %v", line, err)
	}
}

// TestServiceLeavesNoSocketBehind stops the service as soon as it says that it serves, many times, as it may not have begun to.
func TestServiceLeavesNoSocketBehind(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	for range 40 {
		t.Run("", func(t *testing.T) {
			stage.Start(t, stage.Account{UID: uint32(os.Getuid())}, "-pipe", pipe, dir)
			if _, err := os.Stat(pipe); err != nil {
				t.Error(err)
			}
		})
		if _, err := os.Stat(pipe); !os.IsNotExist(err) {
			t.Fatalf("the socket is still there: %v", err)
		}
	}
}
