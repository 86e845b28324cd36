package guise

import (
	"github.com/guise-project/guise/internal/testdir"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestPipesAreOnlyMadeWhereNobodyElseCanTakeTheirNames(t *testing.T) {
	mkdir := func(t *testing.T, path string, mode fs.FileMode, uid int) {
		t.Helper()
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if uid != os.Geteuid() {
			if err := os.Chown(path, uid, -1); err != nil {
				t.Fatal(err)
			}
		}
	}
	me := os.Geteuid()
	tests := []struct {
		name             string
		above            fs.FileMode
		aboveOwner       int
		leaf             fs.FileMode
		leafOwner        int
		says             string
		onlyRootCanTryIt bool
	}{
		{"its own", 0o755, me, 0o755, me, "", false},
		{"private", 0o700, me, 0o700, me, "", false},
		{"in one with a sticky bit", 0o777 | fs.ModeSticky, me, 0o755, me, "", false},
		{"everybody's", 0o755, me, 0o777, me, "others can write to", false},
		{"everybody's with a sticky bit", 0o755, me, 0o777 | fs.ModeSticky, me, "others can write to", false},
		{"a group's", 0o755, me, 0o775, me, "others can write to", false},
		{"others' but not the group's", 0o755, me, 0o757, me, "others can write to", false},
		{"in everybody's", 0o777, me, 0o755, me, "others can write to", false},
		{"in a group's", 0o775, me, 0o755, me, "others can write to", false},
		{"another user's", 0o755, me, 0o755, 61001, "belongs to uid 61001", true},
		{"in another user's", 0o755, 61001, 0o755, me, "belongs to uid 61001", true},
		{"in another user's with a sticky bit", 0o777 | fs.ModeSticky, 61001, 0o755, me, "belongs to uid 61001", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.onlyRootCanTryIt {
				needRoot(t, "it gives a directory to another user")
			}
			base := testdir.Open(t, 0o755)
			above := filepath.Join(base, "above")
			leaf := filepath.Join(above, "between", "leaf")
			mkdir(t, leaf, test.leaf, test.leafOwner)
			mkdir(t, above, test.above, test.aboveOwner)
			link := filepath.Join(base, "link")
			if err := os.Symlink(leaf, link); err != nil {
				t.Fatal(err)
			}
			t.Setenv("GUISE_DIR", leaf)
			listen := map[string]func() (*Listener, error){
				"by path":           func() (*Listener, error) { return Listen(filepath.Join(leaf, "spool"), nil) },
				"by Dir":            func() (*Listener, error) { return Listen("spool", &ListenConfig{Dir: leaf}) },
				"by GUISE_DIR":      func() (*Listener, error) { return Listen("spool", nil) },
				"by a link":         func() (*Listener, error) { return Listen(filepath.Join(link, "spool"), nil) },
				"by a way around":   func() (*Listener, error) { return Listen(leaf+"/../leaf/spool", nil) },
				"by a link in Dir":  func() (*Listener, error) { return Listen("spool", &ListenConfig{Dir: link}) },
				"with message mode": func() (*Listener, error) { return Listen("spool", &ListenConfig{Dir: leaf, Message: true}) },
			}
			for how, f := range listen {
				l, err := f()
				if err == nil {
					l.Close()
				}
				if test.says == "" && err != nil {
					t.Errorf("%s: %v", how, err)
				}
				if test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
					t.Errorf("%s: %v; want an error that says %q", how, err, test.says)
				}
				if left, _ := os.ReadDir(leaf); len(left) != 0 {
					t.Errorf("%s: it leaves %v", how, left)
				}
			}
		})
	}
}

func TestDirectoryIsMadeForEverybodyToLookInto(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := filepath.Join(testdir.Open(t, 0o755), "guise", "pipe")
	t.Setenv("GUISE_DIR", dir)
	l, err := Listen("spool", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		info, err := os.Stat(d)
		if err != nil || info.Mode() != fs.ModeDir|0o755 {
			t.Errorf("%s has mode %v, %v", d, info.Mode(), err)
		}
	}
	c, err := Dial(`\\.\pipe\SPOOL`, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestDirectoryThatIsThereIsLeftAsItIs(t *testing.T) {
	dir := testdir.Open(t, 0o755)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GUISE_DIR", dir)
	if l, err := Listen("spool", nil); err == nil {
		l.Close()
		t.Error("Listen takes it")
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("its mode was changed to %v", info.Mode())
	}
}

func TestWhereNamesAreLookedFor(t *testing.T) {
	own := testdir.Open(t, 0o755)
	foreign := testdir.Open(t, 0o755)
	if os.Geteuid() == 0 {
		if err := os.Chown(foreign, 61001, -1); err != nil {
			t.Fatal(err)
		}
	} else {
		foreign = "/" // root's
	}
	ownPipes := filepath.Join(own, "guise", "pipe")
	tests := []struct {
		name, guise, xdg string
		want             []string
	}{
		{"no variable", "", "", []string{systemDirectory}},
		{"GUISE_DIR replaces both", "/somewhere", own, []string{"/somewhere"}},
		{"one's own runtime directory comes second", "", own, []string{systemDirectory, ownPipes}},
		{"another user's runtime directory does not count", "", foreign, []string{systemDirectory}},
		{"a runtime directory that is not there", "", "/nonexistent", []string{systemDirectory}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("GUISE_DIR", test.guise)
			t.Setenv("XDG_RUNTIME_DIR", test.xdg)
			if got := directories(); strings.Join(got, ":") != strings.Join(test.want, ":") {
				t.Errorf("names are looked for in %q, want %q", got, test.want)
			}
		})
	}
}

func TestWhereUsersPipesAreMade(t *testing.T) {
	own := testdir.Open(t, 0o755)
	if os.Geteuid() == 0 {
		if err := os.Chown(own, 61001, 61001); err != nil {
			t.Fatal(err)
		}
	}
	run := func(env ...string) string {
		return startRaw(t, "user", asUser(61001, 61001), append([]string{"GUISE_DIR=", "XDG_RUNTIME_DIR="}, env...)).end()
	}
	ownPipe := filepath.Join(own, "guise", "pipe", "spool")
	if got := run("XDG_RUNTIME_DIR=" + own); got != ownPipe+" reached" {
		t.Errorf("with a runtime directory of one's own: %s", got)
	}
	for _, env := range []string{"XDG_RUNTIME_DIR=", "XDG_RUNTIME_DIR=/", "XDG_RUNTIME_DIR=/nonexistent"} {
		if got := run(env); !strings.HasPrefix(got, "listen spool: XDG_RUNTIME_DIR") {
			t.Errorf("with %s: %s", env, got)
		}
	}
}

var _ = addRole("user", func() {
	l, err := Listen("spool", nil)
	if err != nil {
		println1(err.Error())
		return
	}
	defer l.Close()
	c, err := Dial("spool", nil)
	if err != nil {
		println1(err.Error())
		return
	}
	c.Close()
	println1(l.Addr().String() + " reached")
})

func println1(s string) { os.Stdout.WriteString(s + "\n") }
