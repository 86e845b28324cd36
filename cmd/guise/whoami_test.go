package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestWhoami(t *testing.T) {
	needRoot(t)
	run(t, "", as(alice, guiseProgram(t, "whoami"))).expect(t, "guise whoami", 0, "61001 groups=61001,61005\n")

	r := run(t, "", as(alice, guiseProgram(t, "whoami", "--json")))
	var got struct {
		User   struct{ ID uint32 }
		Group  struct{ ID uint32 }
		Groups []struct{ ID uint32 }
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatalf("guise whoami --json prints no JSON (%v): %s%s", err, r.out, r.err)
	}
	if got.User.ID != alice || got.Group.ID != alice || len(got.Groups) != 1 || got.Groups[0].ID != aliceGroup {
		t.Errorf("guise whoami --json as 61001 with group 61005 says %+v", got)
	}

	if r := run(t, "", guiseProgram(t, "whoami")); !strings.HasPrefix(r.out, "root(0) ") || !strings.Contains(r.out, "capabilities=") {
		t.Errorf("guise whoami as root says %q", r.out)
	}
}

func TestUnknownCommand(t *testing.T) {
	r := run(t, "", guiseProgram(t, "sreve"))
	if r.status != statusUsage || !strings.Contains(r.err, `"sreve"`) {
		t.Errorf("guise sreve: exit status %d, want %d and what is unknown: %s", r.status, statusUsage, r.err)
	}
}
