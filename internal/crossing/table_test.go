package crossing

import (
	"context"
	"testing"
	"time"

	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/machines"
)

// protections are what smbd requires of its clients, and what these require.
var protections = []struct {
	name    string
	config  machines.Config
	encrypt bool // the clients require it
}{
	{"signing required", machines.Config{Sign: true}, false},
	{"encryption required", machines.Config{Encrypt: true}, false},
	{"nothing required by smbd and encryption by its clients", machines.Config{}, true},
}

// TestTable has every row of the table, with every means to log on and every protection.
func TestTable(t *testing.T) {
	for _, protection := range protections {
		t.Run(protection.name, func(t *testing.T) {
			stage := newStage(t, protection.config)
			for _, ntlm := range []bool{false, true} {
				how := "Kerberos"
				if ntlm {
					how = "NTLM"
				}
				for _, row := range Rows {
					if ntlm && !row.crosses() {
						continue
					}
					t.Run(how+"/"+row.String(), func(t *testing.T) {
						begun := time.Now()
						audience := &listener{t: t}
						if err := stage.Play(t.Context(), row, Variant{NTLM: ntlm, Encrypt: protection.encrypt}, audience); err != nil {
							t.Fatal(err)
						}
						if audience.claims == 0 {
							t.Error("nothing was claimed")
						}
						t.Logf("%d claims in %v", audience.claims, time.Since(begun).Round(time.Millisecond))
					})
				}
			}
		})
	}
}

// TestProcessConnectorIsSilentOnMachines: what follows there follows by the fallback.
func TestProcessConnectorIsSilentOnMachines(t *testing.T) {
	m := start(t, machines.Config{Machines: 1}).Machines[0]
	cmd := takePart(t, m, actor.IDs{}, part{Listens: true})
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(out); got == hears {
		t.Errorf("a process on %s hears of its changes of ids from the kernel", m.Name)
	} else {
		t.Log(got)
	}
}

// TestPlaysFailWhenTheKernelShowsOtherwise has servers that do not impersonate, and say that they do.
func TestPlaysFailWhenTheKernelShowsOtherwise(t *testing.T) {
	stage := newStage(t, machines.Config{})
	stage.Start = func(ctx context.Context, m *machines.Machine, ids actor.IDs, capabilities ...uintptr) (actor.Actor, error) {
		a, err := actor.OnMachine(ctx, m, ids, capabilities...)
		return &liar{a}, err
	}
	for _, row := range Rows {
		t.Run(row.String(), func(t *testing.T) {
			var heard counter
			if err := stage.Play(t.Context(), row, Variant{}, &heard); err == nil && heard.wrong == 0 {
				t.Error("everything was as claimed, and no server has impersonated its client")
			}
		})
	}
}

type counter struct{ right, wrong int }

func (c *counter) Tell(string) {}
func (c *counter) Claim(right bool, _, _ string) {
	if right {
		c.right++
	} else {
		c.wrong++
	}
}

// liar is an actor that says it has done what it was told and does not enter scopes.
type liar struct{ actor.Actor }

func (l *liar) Do(o actor.Order) (actor.Answer, error) {
	switch o.Act {
	case actor.Enter, actor.Leave, actor.Watch:
		return actor.Answer{}, nil
	case actor.Watched:
		return actor.Answer{At: 1}, nil
	case actor.Token:
		return actor.Answer{Context: A.IDs}, nil
	}
	return l.Actor.Do(o)
}
