package scopecheck

import (
	"go/ast"
	"go/types"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
)

const (
	guisePath = "github.com/guise-project/guise"
	scopeGo   = "(*" + guisePath + ".Scope).Go"
)

// enters are the functions that run one in a scope, with the argument that is it.
var enters = map[string]int{
	guisePath + ".RunAs":                    1,
	"(*" + guisePath + ".Conn).RunAsClient": 0,
	scopeGo:                                 0,
	guisePath + "/guisehttp.RunAsClient":    1,
	guisePath + "/guisegrpc.RunAsClient":    1,
}

// isLibrary tells whether a package is of guise's own, which do in a scope what is right there, and start goroutines that enter it.
func isLibrary(path string) bool {
	rest, ok := strings.CutPrefix(plainPath(path), guisePath)
	if !ok {
		return false
	}
	switch first, _, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/"); first {
	case "", "announce", "features", "guisegrpc", "guisehttp", "internal", "smb", "thread", "token":
		return rest == "" || rest[0] == '/'
	}
	return false
}

// importsGuise tells whether a package can have a scope.
func importsGuise(pkg *types.Package) bool {
	return isLibrary(pkg.Path()) || slices.ContainsFunc(pkg.Imports(), func(p *types.Package) bool { return isLibrary(p.Path()) })
}

// isStandard tells whether a package is of the standard library. It has no module and no dot in its path's first part.
func isStandard(pass *analysis.Pass) bool {
	first, _, _ := strings.Cut(pass.Pkg.Path(), "/")
	if pass.Module != nil && pass.Module.Path != "" && pass.Module.Path != "std" {
		return false
	}
	return !strings.Contains(first, ".") && first != "command-line-arguments" && first != "main"
}

// plainPath is a package's path without what the go command appends for tests.
func plainPath(path string) string {
	path, _, _ = strings.Cut(path, " ")
	return path
}

// fullName is a function's as the tables have it.
func fullName(fn *types.Func) string {
	name := fn.Origin().FullName()
	if before, rest, ok := strings.Cut(name, " ["); ok {
		if _, after, ok := strings.Cut(rest, "]"); ok {
			return before + after
		}
	}
	return name
}

// isScope tells whether a type is *guise.Scope.
func isScope(t types.Type) bool { return isPointerTo(t, guisePath, "Scope") }

func isPointerTo(t types.Type, path, name string) bool {
	if t == nil {
		return false
	}
	p, ok := types.Unalias(t).(*types.Pointer)
	return ok && isNamed(p.Elem(), path, name)
}

func isNamed(t types.Type, path, name string) bool {
	if t == nil {
		return false
	}
	named, ok := types.Unalias(t).(*types.Named)
	if !ok || named.Obj().Pkg() == nil {
		return false
	}
	return named.Obj().Name() == name && plainPath(named.Obj().Pkg().Path()) == path
}

// scopeParameter tells whether a function has a parameter of type *guise.Scope. Whoever calls it is in that scope. In guise's own
// packages that says nothing but in tests.
func (c *check) scopeParameter(t *ast.FuncType, at ast.Node) bool {
	if c.library && !c.inTest(at.Pos()) {
		return false
	}
	for _, field := range t.Params.List {
		if isScope(c.pass.TypesInfo.TypeOf(field.Type)) {
			return true
		}
	}
	return false
}
