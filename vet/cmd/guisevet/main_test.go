package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// files are a module that uses guise, with a package of its own and one of others.
var files = map[string]string{
	"go.mod": `module program.example

go 1.25.0

require (
	github.com/guise-project/guise v0.0.0
	others.example v1.0.0
)

replace (
	github.com/guise-project/guise => ROOT
	others.example => ./others
)
`,
	"main.go": `package main

import (
	"others.example"

	"github.com/guise-project/guise"
	"program.example/helper"
)

func main() {
	l, err := guise.Listen("files", nil)
	if err != nil {
		return
	}
	c, err := l.AcceptPipe()
	if err != nil {
		return
	}
	_ = c.RunAsClient(func(s *guise.Scope) error {
		go println()
		helper.Record()
		others.Record()
		helper.Record() //guise:scope-ok the server's own
		return s.Command("id").Run()
	})
}
`,
	"main_test.go": `package main

import (
	"os/exec"
	"testing"

	"github.com/guise-project/guise"
)

func TestScope(*testing.T) {
	_ = guise.RunAs(nil, func(*guise.Scope) error { return exec.Command("id").Run() })
}
`,
	"helper/helper.go": "package helper\n\nfunc Record() { go println() }\n",
	"others/go.mod":    "module others.example\n\ngo 1.25.0\n",
	"others/others.go": "package others\n\nfunc Record() { go println() }\n",
}

func TestTheGoCommandRunsIt(t *testing.T) {
	tool := build(t)
	dir := module(t)

	want := []string{
		"main.go:20:3: a go statement in a scope: the new goroutine runs as the server; use Scope.Go",
		"main.go:21:3: helper.Record in a scope comes to a go statement (helper.go:3): the new goroutine runs as the server; use Scope.Go",
		"main_test.go:11:57: exec.Command in a scope: ",
	}
	t.Run("as it is", func(t *testing.T) { expect(t, vet(t, dir, "-vettool="+tool, "./..."), want...) })
	t.Run("without tests", func(t *testing.T) {
		expect(t, vet(t, dir, "-vettool="+tool, "-scopecheck.tests=false", "./..."), want[:2]...)
	})
	t.Run("with modules of others", func(t *testing.T) {
		expect(t, vet(t, dir, "-vettool="+tool, "-scopecheck.deps", "./..."),
			append(want, "main.go:22:3: others.Record in a scope comes to a go statement (others.go:3)")...)
	})
}

func TestTheGoCommandCanAskWhatItIs(t *testing.T) {
	tool := build(t)
	for question, answer := range map[string]string{"-V=full": "guisevet version ", "-flags": `"scopecheck.deps"`} {
		out, err := exec.Command(tool, question).CombinedOutput()
		if err != nil || !strings.Contains(string(out), answer) {
			t.Errorf("guisevet %s: %v, %q", question, err, out)
		}
	}
}

func build(t *testing.T) string {
	t.Helper()
	tool := filepath.Join(t.TempDir(), "guisevet")
	if out, err := exec.Command("go", "build", "-o", tool, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return tool
}

// module makes the module, with the checksums that guise has.
func module(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "go.sum"), string(sums))
	for name, text := range files {
		write(t, filepath.Join(dir, name), strings.ReplaceAll(text, "ROOT", root))
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// vet returns the lines that go vet finds fault with.
func vet(t *testing.T, dir string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"vet"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("go vet found nothing:\n%s", out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "go: ") {
			lines = append(lines, strings.TrimPrefix(strings.TrimPrefix(line, "vet: "), "./"))
		}
	}
	return lines
}

// expect checks that every line begins as one that is wanted, and every one that is wanted is there.
func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d lines, not %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	all := "\n" + strings.Join(got, "\n")
	for _, w := range want {
		if !strings.Contains(all, "\n"+w) {
			t.Errorf("not found: %s\nin:%s", w, all)
		}
	}
}
