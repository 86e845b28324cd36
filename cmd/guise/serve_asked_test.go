package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/guise-project/guise/internal/testdir"
)

// TestAskingWhetherAServerLivesDoesNotRunIt: whoever wants its name, lists the pipes or completes their names is no client, and no
// command runs for that.
func TestAskingWhetherAServerLivesDoesNotRunIt(t *testing.T) {
	needRoot(t)
	for _, owner := range []uint32{0, alice} {
		t.Run(fmt.Sprintf("a server of uid %d", owner), func(t *testing.T) {
			by := func(command *exec.Cmd) *exec.Cmd {
				if owner == 0 {
					return command
				}
				return as(owner, command)
			}
			dir := testdir.Open(t, 0o755)
			ran := filepath.Join(testdir.Open(t, 0o777), "ran")
			if err := os.Chown(dir, int(owner), int(owner)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "asked")
			s := start(t, path, by(guiseProgram(t, "serve", path, "--", "sh", "-c", `echo ran >>"$0"; cat`, ran)))
			const times = 20
			var clients sync.WaitGroup
			clients.Go(func() {
				for range times {
					if r := run(t, "hello", by(guiseProgram(t, "call", path))); r.status != 0 || r.out != "hello" {
						t.Errorf("a client: exit status %d, %q: %s", r.status, r.out, r.err)
					}
				}
			})
			for range times {
				if r := run(t, "", by(guiseProgram(t, "serve", path, "--", "true"))); r.status == 0 || !strings.Contains(r.err, "a live server has this pipe") {
					t.Fatalf("a second server: exit status %d: %s", r.status, r.err)
				}
				for _, args := range [][]string{{"ls"}, {"__complete", "call", ""}, {"__complete", "watch", ""}} {
					for _, who := range []uint32{0, alice, bob} {
						command := guiseProgram(t, args...)
						if who != 0 {
							command = as(who, command)
						}
						command.Env = append(command.Env, "GUISE_DIR="+dir)
						if r := run(t, "", command); r.status != 0 || !strings.Contains(r.out, "asked") {
							t.Fatalf("guise %s as uid %d: exit status %d, %s%s", strings.Join(args, " "), who, r.status, r.out, r.err)
						}
					}
				}
			}
			clients.Wait()
			// Who connected before this one is accepted before it, and stopping waits for the commands.
			if r := run(t, "hello", by(guiseProgram(t, "call", path))); r.status != 0 {
				t.Errorf("the last client: exit status %d: %s", r.status, r.err)
			}
			s.stop()
			lines, err := os.ReadFile(ran)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(lines), "\n"); n != times+1 {
				t.Errorf("the command ran %d times, for %d clients", n, times+1)
			}
		})
	}
}
