package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/hostile"
	"github.com/guise-project/guise/internal/testdir"
)

// asPasser is set in the environment of a process that is to be a client, which passes the server a file with its first words.
const asPasser = "GUISE_TEST_PASSER"

// passes is how many connections it does so on: more than there are threads that close what strangers have passed.
const passes = 20

// playPasser passes a file by several descriptors, of which it keeps copies, until its standard input ends.
func playPasser(server, path string) {
	if err := passFile(server, path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func passFile(server, path string) error {
	var files []int
	for range 3 {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		files = append(files, fd)
	}
	for range passes {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: server, Net: "unix"})
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, _, err := conn.WriteMsgUnix([]byte("three files\n"), unix.UnixRights(files...), nil); err != nil {
			return err
		}
	}
	fmt.Println("passed")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// A client passes files of its own file system, whose closing never ends. Meanwhile the commands of others start and end.
func TestServeWithFilesWhoseClosingHangs(t *testing.T) {
	needRoot(t)
	dir := testdir.Open(t, 0o755)
	fuse, err := hostile.MountFUSE(dir, hostile.Flush)
	if err != nil {
		t.Skipf("a hostile file system can't be mounted here: %v", err)
	}
	s := serveOn(t, nil, "cat")
	passer := as(alice, guiseProgram(t, s.path, filepath.Join(dir, "file")))
	passer.Env = append(passer.Env, asPasser+"=1")
	passer.Stderr = os.Stderr
	stdin, err := passer.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := passer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := passer.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := fuse.Close(); err != nil { // all that hangs goes on
			t.Error(err)
		}
		stdin.Close()
		if err := passer.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "passed\n" {
		t.Fatalf("the client said %q, %v", line, err)
	}
	// Not all of them are being closed by now; the server still has some.
	s.waitLogs(passes, "client refused")
	for range 3 {
		run(t, "hello", as(bob, guiseProgram(t, "call", s.path))).expect(t, "a call while files of another client's hang", 0, "hello")
	}
}
