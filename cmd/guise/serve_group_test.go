package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// A shell ends with the signal; what it started has the time that it needs.
func TestServeGraceIsTheGroups(t *testing.T) {
	for name, flags := range map[string][]string{
		"the server ends": nil,
		"--timeout":       {"--timeout", "3s"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveOn(t, append(flags, "--grace", patience.String()), "sh", "-c", `
read -r first
exec 3<&0
sh -c 'trap "echo asked; read -r word; echo late \$word; exit" TERM; echo $0; while :; do sleep 0.01; done' $$ <&3 &
wait`)
			conn := s.dial()
			say(t, conn, "first\n")
			shell := firstNumber(t, conn)
			if flags == nil {
				if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			if got := readFor(t, conn, hasLine); got != "asked\n" {
				t.Fatalf("after SIGTERM the command wrote %q", got)
			}
			eventually(t, "the shell has ended", func() bool {
				stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", shell))
				_, running, _ := groupIn(stat)
				return err != nil || !running
			})
			// Whoever takes that for the end of the command has the time to end the rest.
			run(t, "", guiseProgram(t, "whoami"))
			say(t, conn, "go\n")
			if got, err := io.ReadAll(conn); string(got) != "late go\n" || err != nil {
				t.Errorf("what a child of the command says in its grace period came as %q, %v", got, err)
			}
			s.waitLog("client served", "ended=", `status="signal: terminated"`)
		})
	}
}

func TestGroupRuns(t *testing.T) {
	for _, c := range []struct {
		name, script string
		want         bool
	}{
		{"nothing left", "true", false},
		{"a child", "sleep 1000 >&- & :", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			command := exec.Command("sh", "-c", c.script)
			command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			leader := command.Process.Pid
			waitExit(leader)
			if got := groupRuns(leader); got != c.want {
				t.Errorf("it is said to run: %v, want %v", got, c.want)
			}
			syscall.Kill(-leader, syscall.SIGKILL)
			command.Wait()
		})
	}
	// One that can't be seen may have others.
	if !groupRuns(1 << 30) {
		t.Error("a group whose leader is not in /proc is said to be empty")
	}
}

func TestGroupIn(t *testing.T) {
	for stat, want := range map[string]struct {
		group       int
		running, ok bool
	}{
		"12 (sh) S 1 34 34 0":          {34, true, true},
		"12 (a) Z 1 99 (b) R 1 34 5 0": {34, true, true},
		"12 (sh) Z 1 34 34 0":          {34, false, true},
		"12 (sh) X 1 34 34 0":          {34, false, true},
		"12 (sh) S 1":                  {},
		"":                             {},
	} {
		if group, running, ok := groupIn([]byte(stat)); group != want.group || running != want.running || ok != want.ok {
			t.Errorf("%q is understood as %d, %v, %v; want %v", stat, group, running, ok, want)
		}
	}
}
