package scopecheck

import (
	"cmp"
	"go/ast"
	"go/token"
	"go/types"
	"slices"

	"golang.org/x/tools/go/analysis"
)

// Analyzer finds what does not do in a scope of guise's what it seems to do.
var Analyzer = &analysis.Analyzer{
	Name:      "scopecheck",
	Doc:       "find what stays the server's, or breaks, in a function that guise runs as a client\n\nSee go doc github.com/guise-project/guise/vet/scopecheck.",
	URL:       "https://pkg.go.dev/github.com/guise-project/guise/vet/scopecheck",
	Run:       run,
	FactTypes: []analysis.Fact{new(summary)},
}

var followOthers, inTests bool

func init() {
	Analyzer.Flags.BoolVar(&inTests, "tests", true, "report what is in the files of tests, too")
	Analyzer.Flags.BoolVar(&followOthers, "deps", false, "follow calls into modules of others, too")
}

// check is one package's run.
type check struct {
	pass     *analysis.Pass
	silenced silences
	values   values
	nodes    map[any]*node // by *types.Func, *types.Var or *ast.FuncLit
	order    []*node       // the same as they were met, so that a run reports what the last one did
	library  bool          // the package is guise's own
	found    []finding
	later    []func() // what is looked at when it is known what runs in scopes
}

// finding is a diagnostic before those are dropped that say what another one says.
type finding struct {
	analysis.Diagnostic
	origin token.Pos // of what is at fault if that is reported already
}

func run(pass *analysis.Pass) (any, error) {
	if isStandard(pass) {
		return nil, nil // the table knows it
	}
	exports := !isLibrary(pass.Pkg.Path()) && (followOthers || isOwn(pass))
	if !exports && !importsGuise(pass.Pkg) {
		return nil, nil // no scopes here, and nobody asks
	}
	c := &check{
		pass:     pass,
		silenced: silencesOf(pass),
		values:   valuesOf(pass),
		nodes:    map[any]*node{},
		library:  isLibrary(pass.Pkg.Path()),
	}
	c.build()
	c.connect()
	c.forgiveEntering()
	for _, look := range c.later {
		look()
	}
	c.findUnlocks()
	c.spread()
	c.judge()
	c.report()
	if exports {
		c.export()
	}
	return nil, nil
}

// isOwn tells whether the package is of a module that is worked on, rather than of one that was downloaded.
func isOwn(pass *analysis.Pass) bool { return pass.Module == nil || pass.Module.Version == "" }

// build makes the nodes.
func (c *check) build() {
	for _, file := range c.pass.Files {
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if fn, ok := c.pass.TypesInfo.Defs[d.Name].(*types.Func); ok && d.Body != nil {
					n := c.node(fn)
					n.syntax, n.scopeParameter = d, c.scopeParameter(d.Type, d)
					c.walk(n, d.Body)
				}
			case *ast.GenDecl:
				c.walk(c.node(d), d) // function literals of package variables
			}
		}
	}
}

// report gives the findings, without those whose origin is among them.
func (c *check) report() {
	slices.SortStableFunc(c.found, func(a, b finding) int { return cmp.Compare(a.Pos, b.Pos) })
	at := map[token.Pos]bool{}
	for _, f := range c.found {
		at[f.Pos] = true
	}
	type place struct {
		pos     token.Pos
		message string
	}
	done := map[place]bool{}
	for _, f := range c.found {
		p := place{f.Pos, f.Message}
		if done[p] || f.origin.IsValid() && at[f.origin] || c.silenced.at(c.pass.Fset, f.Pos) || !inTests && c.inTest(f.Pos) {
			continue
		}
		done[p] = true
		c.pass.Report(f.Diagnostic)
	}
	for _, pos := range c.silenced.bare {
		if !inTests && c.inTest(pos) {
			continue
		}
		c.pass.Reportf(pos, "%s takes a reason: what makes this right in a scope?", silence)
	}
}

func (c *check) find(pos token.Pos, category, message string) {
	c.found = append(c.found, finding{Diagnostic: analysis.Diagnostic{Pos: pos, Category: category, Message: message}})
}
