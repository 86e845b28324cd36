package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/guise-project/guise/internal/testdir"
)

// unitDirectory has the units of this module.
const unitDirectory = "../../systemd"

// installUnits copies the units to a directory of the test's own, with programs that are there in the place of those that will be.
func installUnits(t *testing.T) string {
	t.Helper()
	dir := testdir.Open(t, 0o755)
	units, err := filepath.Glob(unitDirectory + "/*.*")
	if err != nil || len(units) == 0 {
		t.Skip("the units are not here: the tests run elsewhere")
	}
	places := strings.NewReplacer("/usr/local/bin/guise ", program(t)+" ", "/usr/local/libexec/guise/", "/bin/")
	for _, unit := range units {
		b, err := os.ReadFile(unit)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(unit)), []byte(places.Replace(string(b))), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// instances are of the units.
var instances = []string{"guise@notes.service", "guise-service@notes.service", "guise-service@notes.socket"}

func TestUnitsVerify(t *testing.T) {
	analyze := needProgram(t, "/usr/bin/systemd-analyze")
	dir := installUnits(t)
	for _, unit := range instances {
		command := guiseProgram(t)
		command.Path, command.Args = analyze, []string{analyze, "verify", "--man=no", filepath.Join(dir, unit)}
		if r := run(t, "", command); r.status != 0 || r.err != "" {
			t.Errorf("systemd-analyze verify %s: exit status %d: %s", unit, r.status, r.err)
		}
	}
}

func TestUnitsExposure(t *testing.T) {
	analyze := needProgram(t, "/usr/bin/systemd-analyze")
	dir := installUnits(t)
	// In tenths of systemd's points, of 100; a mount namespace, which the units do without for the commands' sake, would make them fewer.
	for unit, most := range map[string]string{"guise@notes.service": "48", "guise-service@notes.service": "40"} {
		command := guiseProgram(t)
		command.Path, command.Args = analyze, []string{analyze, "security", "--offline=true", "--threshold=" + most, filepath.Join(dir, unit)}
		r := run(t, "", command)
		if strings.Contains(r.err, "unrecognized option") {
			t.Skip("systemd-analyze security --offline is not there before systemd 250")
		}
		if r.status != 0 {
			t.Errorf("%s is more exposed than before: exit status %d: %s%s", unit, r.status, r.out, r.err)
		}
	}
}

// settings returns what a unit's [Service] section says.
func settings(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := make(map[string]string)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok && !strings.HasPrefix(name, "#") {
			found[name] = value
		}
	}
	return found
}

// One client's processes must not be all that a service may have: a server that can start no thread ends.
func TestUnitsLeaveRoom(t *testing.T) {
	dir := installUnits(t)
	for _, name := range []string{"guise@.service", "guise-service@.service"} {
		unit := settings(t, filepath.Join(dir, name))
		all, err := strconv.Atoi(unit["TasksMax"])
		user, userErr := strconv.Atoi(unit["LimitNPROC"])
		if err != nil || userErr != nil || user > all/2 {
			t.Errorf("%s lets one user have %q processes of %q", name, unit["LimitNPROC"], unit["TasksMax"])
		}
	}
}

// The units' command lines are ones that guise understands, and a server with no more than their capabilities serves its clients.
func TestUnitsServe(t *testing.T) {
	needRoot(t)
	setpriv := needProgram(t, "/usr/bin/setpriv")
	dir := installUnits(t)
	for _, c := range []struct {
		unit       string
		privileges []string
		root       string // whom a command for root is
	}{
		{"guise@.service", nil, "0"},
		{"guise-service@.service", []string{"--reuid=61010", "--regid=61010", "--clear-groups"}, ""},
	} {
		t.Run(c.unit, func(t *testing.T) {
			unit := settings(t, filepath.Join(dir, c.unit))
			place := testdir.Open(t, 0o755)
			if c.privileges != nil {
				if err := os.Chown(place, service, service); err != nil {
					t.Fatal(err)
				}
			}
			flags := strings.TrimSuffix(strings.TrimPrefix(unit["Environment"], `"GUISE_SERVE=`), `"`)
			line := strings.NewReplacer("$GUISE_SERVE", flags, "%i --", place+"/pipe --", "/bin/%i", "id -u").Replace(unit["ExecStart"])
			args := append([]string{setpriv}, c.privileges...)
			args = append(args, "--bounding-set="+setprivList(unit["CapabilityBoundingSet"]))
			if ambient := unit["AmbientCapabilities"]; ambient != "" {
				args = append(args, "--inh-caps="+setprivList(ambient), "--ambient-caps="+setprivList(ambient))
			}
			if unit["NoNewPrivileges"] == "yes" {
				args = append(args, "--no-new-privs")
			}
			command := guiseProgram(t)
			command.Path, command.Args, command.Dir = setpriv, append(args, strings.Fields(line)...), "/"
			s := start(t, place+"/pipe", command)
			if s.hasLog("level=WARN") {
				t.Error("the server has something to warn of")
			}
			run(t, "", as(alice, guiseProgram(t, "call", s.path))).expect(t, "a call", 0, "61001\n")
			r := run(t, "", guiseProgram(t, "call", s.path))
			if strings.TrimSpace(r.out) != c.root {
				t.Errorf("a command for root is %q, want %q: %s", r.out, c.root, r.err)
			}
			s.stop()
		})
	}
}

// setprivList writes capabilities as setpriv takes them.
func setprivList(capabilities string) string {
	list := "-all"
	for _, name := range strings.Fields(strings.ToLower(capabilities)) {
		list += ",+" + strings.TrimPrefix(name, "cap_")
	}
	return list
}

func TestUnitsAccount(t *testing.T) {
	sysusers, err := exec.LookPath("systemd-sysusers")
	if err != nil {
		t.Skip("systemd-sysusers is not installed")
	}
	dir := installUnits(t)
	command := guiseProgram(t)
	command.Path, command.Args = sysusers, []string{sysusers, "--dry-run", "--root=" + testdir.Open(t, 0o755), filepath.Join(dir, "guise.conf")}
	if r := run(t, "", command); r.status != 0 || !strings.Contains(r.out+r.err, "user 'guise'") {
		t.Errorf("systemd-sysusers: exit status %d: %s%s", r.status, r.out, r.err)
	}
}
