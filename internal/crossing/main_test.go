package crossing

import (
	"os"
	"os/exec"
	"testing"

	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/machines"
	"github.com/guise-project/guise/internal/machinestest"
)

func TestMain(m *testing.M) {
	actor.PlayIfAsked()
	playPart()
	os.Exit(leftover.Main(m))
}

// start makes machines for a test, with the plays' accounts.
func start(t *testing.T, c machines.Config) *machines.Network {
	t.Helper()
	c.Accounts = append(Accounts(), c.Accounts...)
	return machinestest.Start(t, &c)
}

// listener is a test as a play's audience.
type listener struct {
	t      *testing.T
	claims int
}

func (l *listener) Tell(what string) { l.t.Log(what) }

func (l *listener) Claim(right bool, what, shown string) {
	l.t.Helper()
	l.claims++
	if shown != "" {
		what += ": " + shown
	}
	if right {
		l.t.Log("as claimed: " + what)
	} else {
		l.t.Error("NOT AS CLAIMED: " + what)
	}
}

// playing plays something that is no row of the table.
func playing(t *testing.T, s *Stage, v Variant, f func(*play)) {
	t.Helper()
	if err := s.play(t.Context(), v, &listener{t: t}, f); err != nil {
		t.Fatal(err)
	}
}

// newStage makes machines and furnishes them.
func newStage(t *testing.T, c machines.Config) *Stage {
	t.Helper()
	s, err := NewStage(start(t, c), c.Encrypt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// systemPython is Debian's Python, which the machines have too.
func systemPython(program string) *exec.Cmd {
	cmd := exec.Command("/usr/bin/python3", "-c", program)
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	return cmd
}
