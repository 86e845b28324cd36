package scopecheck_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/guise-project/guise/vet/scopecheck"
)

// The packages in testdata, which use the real guise, say what is found in them and what is not.

func TestWhatRunsOnOtherGoroutinesIsFound(t *testing.T)        { check(t, "goroutine") }
func TestProgramsThatStayTheServersAreFound(t *testing.T)      { check(t, "program") }
func TestFieldsOfAScopesCommandAreLeftAlone(t *testing.T)      { check(t, "command") }
func TestCallsThatChangeIDsAreFound(t *testing.T)              { check(t, "ids") }
func TestUnlockingTheThreadTakesALockOfOnesOwn(t *testing.T)   { check(t, "unlock") }
func TestNamesAreNotLookedUpInScopes(t *testing.T)             { check(t, "network") }
func TestWhatChangesTheProcessIsFound(t *testing.T)            { check(t, "process") }
func TestCallsThatGoByRealIDsAreFound(t *testing.T)            { check(t, "realids") }
func TestScopesThatAreKeptAreFound(t *testing.T)               { check(t, "keep") }
func TestACommentWithAReasonSilences(t *testing.T)             { check(t, "silence") }
func TestFunctionsAreKnownByOtherNames(t *testing.T)           { check(t, "variables") }
func TestFunctionsAreFollowedAlsoToOtherPackages(t *testing.T) { check(t, "follow", "elsewhere") }

// check fails the test for what was not as packages say. What was wrong with none of them fails every test.
func check(t *testing.T, packages ...string) {
	t.Helper()
	r := analyze()
	if r.err != nil {
		t.Fatal(r.err)
	}
	for _, name := range packages {
		if !slices.Contains(r.packages, name) {
			t.Errorf("package %s was not looked at", name)
		}
	}
	for _, message := range r.wrong {
		name, _, _ := strings.Cut(message, "/")
		if slices.Contains(packages, name) || !slices.Contains(r.packages, name) {
			t.Error(message)
		}
	}
}

type results struct {
	packages []string
	wrong    []string
	err      error
}

// Errorf makes it an analysistest.Testing.
func (r *results) Errorf(format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

// analyze runs the analyzer over all packages at once: they all use guise and most of the standard library, which takes some time to load.
var analyze = sync.OnceValue(func() *results {
	r := new(results)
	dir := analysistest.TestData()
	// analysistest allows no downloads: what they take has to be there.
	list := exec.Command("go", "list", "-deps", "./...")
	list.Dir = dir
	list.Env = append(os.Environ(), "GOWORK=off")
	if out, err := list.CombinedOutput(); err != nil {
		r.err = fmt.Errorf("go list in %s: %w\n%s", dir, err, out)
		return r
	}
	for _, result := range analysistest.Run(r, dir, scopecheck.Analyzer, "./src/...") {
		r.packages = append(r.packages, result.Action.Package.Name)
	}
	return r
})
