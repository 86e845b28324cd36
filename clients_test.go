package guise_test

import (
	"bufio"
	"context"
	"fmt"
	"github.com/guise-project/guise/internal/testdir"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/guise-project/guise"
)

// greet is a server of one line: it makes the file that the client names, as the client, and says whose it is.
func greet(t *testing.T, l *guise.Listener) {
	c, err := l.AcceptPipe()
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Errorf("the client wrote %q, %v", line, err)
		return
	}
	fmt.Fprintln(c, create(c, strings.TrimSpace(line)))
}

// create makes a file as the client and returns what became of it.
func create(c *guise.Conn, path string) (owner string) {
	err := c.RunAsClient(func(*guise.Scope) error {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err == nil {
			owner = fmt.Sprint("uid ", info.Sys().(*syscall.Stat_t).Uid)
		}
		return err
	})
	if err != nil {
		return err.Error()
	}
	return owner
}

type connKey struct{}

// TestProgramsThatDoNotKnowGuise has the programs that people have call a Go server.
func TestProgramsThatDoNotKnowGuise(t *testing.T) {
	needRoot(t)
	const script = `
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall((sys.argv[2] + "\n").encode())
sys.stdout.write(s.makefile().read())`
	for _, test := range []struct {
		name, program string
		args          func(pipe, file string) []string
		input         bool
		http          bool
	}{
		{"curl", "/usr/bin/curl", func(pipe, file string) []string {
			return []string{"--silent", "--show-error", "--unix-socket", pipe, "http://guise" + file}
		}, false, true},
		{"socat", "/usr/bin/socat", func(pipe, _ string) []string { return []string{"-t5", "-", "UNIX-CONNECT:" + pipe} }, true, false},
		{"python", "/usr/bin/python3", func(pipe, file string) []string { return []string{"-c", script, pipe, file} }, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := os.Stat(test.program); err != nil {
				t.Skipf("%s is not installed: %v", test.name, err)
			}
			l := listenOn(t, &guise.ListenConfig{Tracking: guise.Dynamic}) // a plain client is static all the same
			files := testdir.Open(t, 0o755)
			if err := os.Chmod(files, 0o777); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			if test.http {
				server := &http.Server{
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						c := r.Context().Value(connKey{}).(*guise.Conn)
						fmt.Fprintln(w, create(c, r.URL.Path))
					}),
					ConnContext: func(ctx context.Context, c net.Conn) context.Context {
						return context.WithValue(ctx, connKey{}, c)
					},
				}
				go func() { defer close(done); server.Serve(l) }()
				defer func() { server.Close(); <-done }()
			} else {
				go func() { defer close(done); greet(t, l) }()
				defer func() { <-done }()
			}
			for _, file := range []string{filepath.Join(files, "made")} {
				cmd := exec.Command(test.program, test.args(l.Addr().String(), file)...)
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61001, Gid: 61001, Groups: []uint32{}}}
				if test.input {
					cmd.Stdin = io.MultiReader(strings.NewReader(file + "\n"))
				}
				out, err := cmd.CombinedOutput()
				if err != nil || string(out) != "uid 61001\n" {
					t.Errorf("%s as uid 61001 had a file made: %q, %v; want it to belong to uid 61001", test.name, out, err)
				}
			}
		})
	}
}

func TestListenersThatOthersMade(t *testing.T) {
	for _, kind := range []string{"unix", "unixpacket"} {
		for _, how := range []string{"net.Listener", "descriptor"} {
			t.Run(kind+" from a "+how, func(t *testing.T) {
				path := filepath.Join(testdir.Open(t, 0o755), "pipe")
				made, err := net.Listen(kind, path)
				if err != nil {
					t.Fatal(err)
				}
				var l *guise.Listener
				if how == "descriptor" {
					f, err := made.(*net.UnixListener).File()
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					defer made.Close()
					l, err = guise.ListenFile(f, nil)
					if err != nil {
						t.Fatal(err)
					}
				} else if l, err = guise.ListenOn(made, nil); err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				near, server := pair(t, l, nil, &guise.QoS{Tracking: guise.Dynamic})
				if want := kind == "unixpacket"; near.Message() != want || server.Message() != want {
					t.Errorf("message mode is %v at the client, %v at the server, want %v", near.Message(), server.Message(), want)
				}
				if got := server.QoS().Tracking; got != guise.Dynamic {
					t.Errorf("tracking is %v, want dynamic", got)
				}
			})
		}
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	if l, err := guise.ListenOn(tcp, nil); err == nil {
		l.Close()
		t.Error("a TCP listener was taken")
	}
}
