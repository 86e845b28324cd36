package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/examples/internal/stage"
	"github.com/guise-project/guise/features"
	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

func TestMain(m *testing.M) {
	actor.PlayIfAsked()
	os.Exit(stage.Main(m, main))
}

// caller is a process that sends jobs.
type caller struct {
	t *testing.T
	actor.Actor
}

func newCaller(t *testing.T, uid uint32, capabilities ...uintptr) caller {
	t.Helper()
	a, err := actor.Process(actor.IDs{UID: uid, GID: uid}, capabilities...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Stop() })
	return caller{t, a}
}

func (c caller) must(o actor.Order) actor.Answer {
	c.t.Helper()
	a, err := c.Do(o)
	if err != nil {
		c.t.Fatalf("%s: %v", o.Act, err)
	}
	return a
}

// ask sends a job and returns the answer.
func (c caller) ask(job string) string {
	c.t.Helper()
	c.must(actor.Order{Act: actor.Write, Conn: "chain", Text: job + "\n", Patience: 20 * time.Second})
	return strings.TrimSuffix(c.must(actor.Order{Act: actor.Read, Conn: "chain", Patience: 20 * time.Second}).Text, "\n")
}

// start starts the chain, and returns the first step's pipe, the archive, and the processes that lead to its last step.
func start(t *testing.T, account stage.Account) (pipe, archive string, way [2]int) {
	t.Helper()
	archive = testdir.Open(t, 0o1777)
	dir := testdir.Open(t, 0o755)
	if err := os.Chown(dir, int(account.UID), int(account.UID)); err != nil {
		t.Fatal(err)
	}
	step := func(name string) string { return filepath.Join(dir, name) }
	stage.Start(t, account, "-pipe", step("archiver"), "-dir", archive)
	spooler := stage.Start(t, account, "-pipe", step("spooler"), "-next", step("archiver"))
	frontend := stage.Start(t, account, "-pipe", step("frontend"), "-next", step("spooler"))
	return step("frontend"), archive, [2]int{frontend, spooler}
}

func TestEachStepActsAsTheFirstCaller(t *testing.T) {
	stage.NeedRoot(t)
	if err := features.DynamicTracking(); err != nil {
		t.Skip(err)
	}
	for name, account := range stage.Services {
		t.Run(name, func(t *testing.T) {
			pipe, archive, way := start(t, account)
			for _, test := range []struct {
				tracking guise.Tracking
				second   uint32 // whose the second job is
			}{
				{guise.TrackingUnstated, 61001},
				{guise.Static, 61001},
				{guise.Dynamic, 61002},
			} {
				t.Run(test.tracking.String(), func(t *testing.T) {
					c := newCaller(t, 61001, token.CapSetuid, token.CapSetgid)
					c.must(actor.Order{Act: actor.Dial, Pipe: pipe, Conn: "chain", QoS: &guise.QoS{Tracking: test.tracking}})
					first, second := test.tracking.String()+"-1", test.tracking.String()+"-2"
					firstAnswer := c.ask(first)
					c.must(actor.Order{Act: actor.Become, IDs: actor.IDs{UID: 61002, GID: 61002}})
					secondAnswer := c.ask(second)
					for _, job := range []struct {
						name, answer string
						uid          uint32
					}{{first, firstAnswer, 61001}, {second, secondAnswer, test.second}} {
						// The caller's own process comes first. Its uid there is the real one when the frontend first looked, so it
						// is not compared.
						begins := fmt.Sprintf("%s: kept for uid %d, dynamic, by way of uid ", job.name, job.uid)
						ends := fmt.Sprintf(" (process %d), uid %d (process %d), uid %d (process %d)", c.PID(), account.UID, way[0], account.UID, way[1])
						if !strings.HasPrefix(job.answer, begins) || !strings.HasSuffix(job.answer, ends) {
							t.Errorf("the answer is %q, want %q...%q", job.answer, begins, ends)
						}
						if uid, err := stage.Owner(filepath.Join(archive, job.name)); uid != job.uid || err != nil {
							t.Errorf("%s is %d's, %v, want %d's", job.name, uid, err, job.uid)
						}
					}
				})
			}
		})
	}
}

func TestNoStepLendsItsRights(t *testing.T) {
	stage.NeedRoot(t)
	if err := features.DynamicTracking(); err != nil {
		t.Skip(err)
	}
	pipe, archive, _ := start(t, stage.Account{})
	if err := os.Chmod(archive, 0o755); err != nil {
		t.Fatal(err)
	}
	c := newCaller(t, 61001)
	c.must(actor.Order{Act: actor.Dial, Pipe: pipe, Conn: "chain", QoS: &guise.QoS{Tracking: guise.Dynamic}})
	for job, says := range map[string]string{"job": "permission denied", "../job": "escapes", "one\ntwo": "one job at a time"} {
		if got := c.ask(job); !strings.Contains(got, says) {
			t.Errorf("the answer to %q is %q, want one that says %q", job, got, says)
		}
		if strings.Contains(job, "\n") {
			c = newCaller(t, 61001)
			c.must(actor.Order{Act: actor.Dial, Pipe: pipe, Conn: "chain", QoS: &guise.QoS{Tracking: guise.Dynamic}})
		}
	}
	if files, err := os.ReadDir(archive); len(files) > 0 || err != nil {
		t.Errorf("there are %v in the archive, %v", files, err)
	}
}
