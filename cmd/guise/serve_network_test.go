package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/guise-project/guise/internal/testdir"
)

func TestServeNetworkPath(t *testing.T) {
	dir := testdir.Open(t, 0o755)
	path := filepath.Join(dir, "for-smbd")
	command := guiseProgram(t, "serve", "--network", "--network-path", path, "notes", "--", "cat")
	command.Env = append(command.Env, "GUISE_DIR="+filepath.Join(dir, "guise"))
	s := start(t, filepath.Join(dir, "guise", "notes"), command)
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket for smbd is %v, %v; want one of mode 0600", info, err)
	}
	run(t, "hello", guiseProgram(t, "call", s.path)).expect(t, "a call", 0, "hello")
	s.stop()
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket for smbd is still there after the server's end")
	}
}

func TestServeNetworkUsage(t *testing.T) {
	for _, flags := range []string{"--network-path /x", "--network-name x", "--network-dir /x", "--network --network-path /x --network-dir /y"} {
		args := append(append([]string{"serve"}, strings.Fields(flags)...), "/nonexistent/pipe", "--", "cat")
		if r := run(t, "", guiseProgram(t, args...)); r.status != statusUsage {
			t.Errorf("guise serve %s: exit status %d, want %d: %s", flags, r.status, statusUsage, r.err)
		}
	}
}
