package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/features"
	"github.com/guise-project/guise/internal/without"
)

// wantStatus is the exit status that guise check should have on this kernel.
func wantStatus() int {
	for _, f := range features.All() {
		if f.Err() != nil {
			return statusFailed
		}
	}
	return 0
}

func TestCheck(t *testing.T) {
	r := run(t, "", guiseProgram(t, "check"))
	if r.status != wantStatus() {
		t.Errorf("guise check: exit status %d, want %d: %s", r.status, wantStatus(), r.err)
	}
	for _, f := range features.All() {
		if !strings.Contains(r.out, f.Name) || !strings.Contains(r.out, f.Since) {
			t.Errorf("guise check does not tell of %s since %s:\n%s", f.Name, f.Since, r.out)
		}
	}
}

func TestCheckPrivilege(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name         string
		capabilities []uintptr
		want         bool
	}{
		{"none", nil, false},
		{"CAP_SETUID alone", []uintptr{unix.CAP_SETUID}, false},
		{"CAP_SETUID and CAP_SETGID", []uintptr{unix.CAP_SETUID, unix.CAP_SETGID}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			command := guiseProgram(t, "check", "--json")
			command.Env = append(command.Env, "XDG_RUNTIME_DIR=", "GUISE_DIR=")
			command.Dir = "/"
			command.SysProcAttr = &syscall.SysProcAttr{
				Credential:  &syscall.Credential{Uid: service, Gid: service, Groups: []uint32{}},
				AmbientCaps: c.capabilities,
			}
			r := run(t, "", command)
			var got report
			decoder := json.NewDecoder(strings.NewReader(strings.Replace(r.out, `"user"`, `"-"`, 1))) // tokens can't be read back
			if err := decoder.Decode(&got); err != nil {
				t.Fatalf("guise check --json prints no JSON (%v): %s%s", err, r.out, r.err)
			}
			if r.status != wantStatus() || got.ActAsOthers != c.want {
				t.Errorf("guise check: exit status %d, acts as others: %v; want %d and %v, for privilege has no part in the status", r.status, got.ActAsOthers, wantStatus(), c.want)
			}
			if got.Directory != "" || !strings.Contains(got.NoDirectory, "XDG_RUNTIME_DIR") {
				t.Errorf("a user without XDG_RUNTIME_DIR has pipes in %q (%s)", got.Directory, got.NoDirectory)
			}
		})
	}
}

func TestCheckDirectory(t *testing.T) {
	command := guiseProgram(t, "check")
	command.Env = append(command.Env, "GUISE_DIR=/somewhere/else")
	if r := run(t, "", command); !strings.Contains(r.out, "/somewhere/else") {
		t.Errorf("guise check does not say that pipes are in GUISE_DIR:\n%s", r.out)
	}
}

// TestCheckTellsWhatAProcessIsWithout takes away what is not the kernel's alone, and looks at both forms of the report.
func TestCheckTellsWhatAProcessIsWithout(t *testing.T) {
	if err := errors.Join(features.ProcessEvents.Err(), features.ScopesFollow.Err()); err != nil {
		t.Skipf("it is not to be had here either: %v", err)
	}
	for _, test := range []struct {
		name    string
		attr    syscall.SysProcAttr
		ignore  bool // signal 34, which is handed down
		feature *features.Feature
		says    string
	}{
		{"network namespace", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, false, features.ProcessEvents, "connection refused"},
		{"signal 34 taken", syscall.SysProcAttr{}, true, features.ScopesFollow, "signal 34 is taken"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := without.Namespaces(test.attr.Cloneflags); err != nil {
				t.Skipf("making the namespace is not permitted: %v", err)
			}
			check := func(args ...string) result {
				command := guiseProgram(t, append([]string{"check"}, args...)...)
				if test.ignore {
					command.Args = append([]string{"sh", "-c", `trap "" 34; exec "$@"`, "sh", command.Path}, command.Args[1:]...)
					command.Path = "/bin/sh"
				}
				command.SysProcAttr = &test.attr
				return run(t, "", command)
			}
			r := check()
			if want := "without it: " + test.feature.Without + " ("; r.status != statusFailed || !strings.Contains(r.out, want) || !strings.Contains(r.out, test.says) {
				t.Errorf("guise check: exit status %d, want %d, %q and %q:\n%s%s", r.status, statusFailed, want, test.says, r.out, r.err)
			}
			r = check("--json")
			var got struct{ Features []featureReport }
			if err := json.Unmarshal([]byte(r.out), &got); err != nil {
				t.Fatalf("%v: %s%s", err, r.out, r.err)
			}
			found := false
			for _, f := range got.Features {
				if f.Name == test.feature.Name {
					found = true
					if f.There || f.Since != test.feature.Since || f.Takes != test.feature.Takes || f.Without != test.feature.Without || !strings.Contains(f.Error, test.says) {
						t.Errorf("as JSON it is %+v", f)
					}
				} else if !f.There {
					t.Errorf("%s is missing too: %s", f.Name, f.Error)
				}
			}
			if !found {
				t.Errorf("%s is not in %s", test.feature.Name, r.out)
			}
		})
	}
}

func TestReportOfAMissingFeature(t *testing.T) {
	r := &report{Kernel: "4.9", Features: []featureReport{
		{Name: "SO_THIS", There: true, Since: "4.8", Use: "this use"},
		{Name: "timeless", There: true, Use: "another use"},
		{Name: "SO_THAT", Since: "6.5", Use: "that use", Without: "no tracking", Error: "SO_THAT: not supported"},
	}, NoDirectory: "no directory for reasons"}
	var out bytes.Buffer
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"this use", "timeless  yes    -", "without it: no tracking (SO_THAT: not supported)", "no directory for reasons", "all tracking is static", "not both held"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, &out)
		}
	}
	if err := r.missing(); err == nil || exitStatus(err) != statusFailed {
		t.Errorf("a missing feature ends guise check with %v, want exit status %d", err, statusFailed)
	}
}
