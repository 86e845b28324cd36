package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/guise-project/guise/examples/internal/stage"
	"github.com/guise-project/guise/internal/testdir"
)

func TestMain(m *testing.M) { os.Exit(stage.Main(m, main)) }

// TestServiceEndsAtOnce stops the service as soon as it says that it serves, many times, as it may not have begun to.
func TestServiceEndsAtOnce(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	for range 40 {
		t.Run("", func(t *testing.T) {
			stage.Start(t, stage.Account{UID: uint32(os.Getuid())}, "-pipe", pipe, "serve", dir) // fails the test if it ends with an error
		})
		if _, err := os.Stat(pipe); !os.IsNotExist(err) {
			t.Fatalf("the socket is still there: %v", err)
		}
	}
}

func TestHandlersRunAsTheirCallers(t *testing.T) {
	stage.NeedRoot(t)
	for name, account := range stage.Services {
		t.Run(name, func(t *testing.T) {
			dir, run := testdir.Open(t, 0o1777), testdir.Open(t, 0o755)
			if err := os.Chown(run, int(account.UID), int(account.UID)); err != nil {
				t.Fatal(err)
			}
			pipe := filepath.Join(run, "pipe")
			file := filepath.Join(dir, "mine")
			stage.Start(t, account, "-pipe", pipe, "serve", dir)
			for _, step := range []struct {
				uid          uint32
				method, file string
				want, fails  string
			}{
				{61001, "create", "mine", "", ""},
				{61001, "get", "mine", "content", ""},
				{61002, "get", "mine", "", "PermissionDenied"},
				{61002, "create", "mine", "", "AlreadyExists"},
				{61002, "create", "sub/theirs", "", "NotFound"},
				{61001, "get", ".", "", "PermissionDenied"},
				{61001, "get", "../" + filepath.Base(run) + "/pipe", "", "escapes"},
			} {
				got, err := stage.Run(stage.Account{UID: step.uid}, "-pipe", pipe, step.method, step.file)
				if got != step.want || (err == nil) != (step.fails == "") || err != nil && !strings.Contains(err.Error(), step.fails) {
					t.Errorf("%d: %s %s: got %q, %v, want %q, %q", step.uid, step.method, step.file, got, err, step.want, step.fails)
				}
				if step.method != "create" || step.fails != "" {
					continue
				}
				if uid, err := stage.Owner(file); uid != step.uid || err != nil {
					t.Errorf("the file is %d's, %v", uid, err)
				}
				if err := os.WriteFile(file, []byte("content"), 0); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(file, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
