package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asMeddler is set in the environment of a process that is to be a client's command, which does what it reads.
const asMeddler = "GUISE_TEST_MEDDLER"

func playMeddler() {
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		if orders.Text() == "meddle" {
			fmt.Println(meddle())
			continue
		}
		fmt.Fprintln(os.Stderr, orders.Text())
	}
	os.Exit(0)
}

// meddle does to the standard error of a client's command what the client can: it takes the descriptor out of it.
func meddle() error {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(self)
	fd, err := unix.PidfdGetfd(self, 2, 0)
	if err != nil {
		return err
	}
	// Signals to the server, as soon as something is read.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETOWN, os.Getppid()); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_NONBLOCK|unix.O_ASYNC|unix.O_APPEND); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, os.Getpagesize()); err != nil && err != unix.EBADF { // a socket
		return err
	}
	if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil && err != unix.ENOTSOCK {
		return err
	}
	if end, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_NONBLOCK, 0); err == nil { // ENXIO: a socket
		_, _ = unix.FcntlInt(uintptr(end), unix.F_SETOWN, os.Getppid())
		_, _ = unix.FcntlInt(uintptr(end), unix.F_SETFL, unix.O_NONBLOCK|unix.O_ASYNC)
		_, _ = unix.Read(end, make([]byte, 10))
	}
	_, err = unix.Write(fd, []byte("meddled\n"))
	return err
}

// serverOn starts a server with meddlers for commands, whose standard error is file, and returns its log's lines, read from near.
func serverOn(t *testing.T, near, file *os.File) (path string, pid int, lines <-chan string) {
	t.Helper()
	path, server := serveTo(t, file, "exec env "+asMeddler+"=1 "+program(t))
	read := make(chan string, 10000)
	go func() {
		for s := bufio.NewScanner(near); s.Scan(); {
			read <- s.Text()
		}
	}()
	t.Cleanup(func() { end(t, server) })
	return path, server.Process.Pid, read
}

// waitLine waits for a line with all of parts in it.
func waitLine(t *testing.T, lines <-chan string, parts ...string) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case line := <-lines:
			if hasAll(line, parts) {
				return
			}
		case <-late:
			t.Fatalf("the server logs no line with all of %q", parts)
		}
	}
}

// openFlags returns a process's descriptors with the flags of their open files.
func openFlags(t *testing.T, pid int) map[string]string {
	t.Helper()
	flags := make(map[string]string)
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		info, err := os.ReadFile(path)
		if err != nil {
			continue // it is closed
		}
		_, rest, _ := strings.Cut(string(info), "flags:")
		first, _, _ := strings.Cut(rest, "\n")
		flags[filepath.Base(path)] = strings.TrimSpace(first)
	}
	return flags
}

// A client does with its command's standard error what it can. The server's has nothing of it, and others' lines come.
func TestServeCommandErrorsAreNotTheServers(t *testing.T) {
	needRoot(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	fromPipe, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		near, file *os.File
	}{
		{"pipe", fromPipe, pipe},
		{"socket", os.NewFile(uintptr(pair[0]), "near"), os.NewFile(uintptr(pair[1]), "socket")},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer c.near.Close()
			path, pid, lines := serverOn(t, c.near, c.file)
			waitLine(t, lines, "msg=listening")
			call := as(alice, guiseProgram(t, "call", path))
			stdin, err := call.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := call.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := call.Start(); err != nil {
				t.Fatal(err)
			}
			io.WriteString(stdin, "alice speaks\n")
			waitLine(t, lines, `line="alice speaks"`, " uid=61001 ", fmt.Sprintf(" pid=%d", call.Process.Pid))
			size, _ := unix.FcntlInt(c.file.Fd(), unix.F_GETPIPE_SZ, 0)
			before := openFlags(t, pid)
			io.WriteString(stdin, "meddle\n")
			if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "<nil>\n" {
				t.Fatalf("the client could not do all that it was to: %q, %v", line, err)
			}
			waitLine(t, lines, "line=meddled ", " uid=61001 ") // read, and so a signal was due
			if after := openFlags(t, pid); !maps.Equal(after, before) {
				t.Errorf("the server's descriptors have flags %v, want %v as before", after, before)
			}
			if now, _ := unix.FcntlInt(c.file.Fd(), unix.F_GETPIPE_SZ, 0); now != size {
				t.Errorf("the server's standard error has room for %d bytes, want %d as before", now, size)
			}
			run(t, "bob speaks\n", as(bob, guiseProgram(t, "call", path))).expect(t, "another client", 0, "")
			waitLine(t, lines, `line="bob speaks"`, " uid=61002 ")
			stdin.Close()
			if err := call.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What nobody reads any more must hold up no command: the server's standard error is full.
func TestServeCommandErrorsWithoutAReader(t *testing.T) {
	near, file, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	if _, err := unix.FcntlInt(file.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize()); err != nil {
		t.Fatal(err)
	}
	path, server := serveTo(t, file, "seq 20000 >&2; echo written")
	defer end(t, server)
	for range 2 {
		run(t, "", guiseProgram(t, "call", path)).expect(t, "a command that writes more than the log takes", 0, "written\n")
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(io.Discard, near)
	}()
	t.Cleanup(func() { <-read })
	file.Close()
}

// A command that never stops writing keeps nobody else from being served and logged.
func TestServeCommandErrorsFlood(t *testing.T) {
	needRoot(t)
	s := serveOn(t, []string{"--grace", "0"}, "sh", "-c", `read what; if [ "$what" = flood ]; then exec yes >&2; fi; echo "$what" >&2`)
	for range 4 {
		call := as(alice, guiseProgram(t, "call", s.path))
		call.Stdin = strings.NewReader("flood\n")
		if err := call.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			call.Process.Kill()
			call.Wait()
		}()
	}
	s.waitLogs(linesAtOnce, "line=y ", " uid=61001 ")
	for range 3 {
		run(t, "quiet words\n", as(bob, guiseProgram(t, "call", s.path))).expect(t, "another client", 0, "")
	}
	s.waitLogs(3, `line="quiet words"`, " uid=61002 ")
	s.stop()
	if !s.hasLog("command's standard error left out", " uid=61001 ") {
		t.Error("the log does not say that lines were left out")
	}
}

// What a command writes can't look like a line of the server's own.
func TestServeCommandErrorsForgeNoLine(t *testing.T) {
	const lines = `time=2026-01-01T00:00:00Z level=INFO msg="client served" uid=0\n{"msg":"client served"}\n\033[2J\r\302\233\nan \377 end" uid=0 "\nno newline`
	for format, c := range map[string]struct {
		own  func(line string) bool
		want []string
	}{
		"text": {
			func(line string) bool { return strings.HasPrefix(line, "time=") },
			[]string{
				` line="time=2026-01-01T00:00:00Z level=INFO msg=\"client served\" uid=0" `, ` line="{\"msg\":\"client served\"}" `,
				` line="\x1b[2J\r\u009b" `, ` line="an \xff end\" uid=0 \"" `, ` line="no newline" `,
			},
		},
		"json": {
			func(line string) bool {
				var fields struct{ Time, Pipe string }
				return json.Unmarshal([]byte(line), &fields) == nil && fields.Time != "" && fields.Pipe != ""
			},
			[]string{
				`"line":"time=2026-01-01T00:00:00Z level=INFO msg=\"client served\" uid=0"`, `"line":"{\"msg\":\"client served\"}"`,
				`"line":"\u001b[2J\r`, `"line":"an \ufffd end\" uid=0 \""`, `"line":"no newline"`,
			},
		},
	} {
		t.Run(format, func(t *testing.T) {
			log := logFile(t)
			path := filepath.Join(filepath.Dir(log.Name()), "pipe")
			server := guiseProgram(t, "serve", "--log", format, path, "--", "sh", "-c", "printf '"+strings.ReplaceAll(lines, `'`, `'\''`)+"' >&2")
			server.Stderr = log
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the server listens", func() bool { return lifeOf(path) == living })
			run(t, "", guiseProgram(t, "call", path))
			end(t, server)
			got, err := os.ReadFile(log.Name())
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(got)) {
				if !c.own(strings.TrimSuffix(line, "\n")) {
					t.Errorf("this line of the log is not the server's: %q", line)
				}
			}
			for _, want := range c.want {
				if !strings.Contains(string(got), want) {
					t.Errorf("the log has not %q in it:\n%s", want, got)
				}
			}
		})
	}
}
