package scopecheck

import (
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"strconv"
	"strings"
)

// node is a function, a function literal, or a variable that may hold one. What a function does on the goroutine that it is called on
// is an edge of it; what it starts or hands to others is none.
type node struct {
	name   string
	syntax ast.Node // *ast.FuncDecl or *ast.FuncLit, nil for a variable
	parent *node    // that a literal is written in
	fn     *types.Func
	named  *types.Var

	calls     []*ast.CallExpr // as they are written
	iterators []ast.Expr      // functions that are ranged over
	edges     []edge
	problems  []problem
	locks     []token.Pos // runtime.LockOSThread
	unlocks   []token.Pos

	entry          bool // guise runs it in a scope
	given          bool // its name was given to guise for that
	enters         bool // it enters a scope itself
	scopeParameter bool
	reasons        map[string]reason // by rule: what a call of it comes to
}

// edge is a call, at a place, of what is the same package's.
type edge struct {
	pos token.Pos
	to  *node
}

// problem is something that is a mistake if it is done in a scope.
type problem struct {
	pos     token.Pos
	rule    string
	what    string
	happens string
	instead string
	origin  token.Pos // of what else is reported if this is
	starts  any       // the function of a go statement, as function returns it
	far     *reason   // of a function in another package, which this calls
}

// reason is a problem at the end of a way of calls.
type reason struct {
	Rule, What, Happens, Instead string
	Where                        string   // file and line, of which the file's last name is enough
	Way                          []string // functions that lie between
}

// message says it of a subject, which is what is called in the scope.
func (r reason) message(subject string) string {
	way := ""
	if len(r.Way) > 0 {
		way = ", by way of " + strings.Join(r.Way, ", ")
	}
	return subject + " in a scope comes to " + r.What + " (" + r.Where + way + "): " + r.Happens + "; " + r.Instead
}

func (p problem) message() string {
	if p.far != nil {
		return p.far.message(p.what)
	}
	return p.what + " in a scope: " + p.happens + "; " + p.instead
}

// reason makes a problem one for those who call the function that has it.
func (c *check) reason(p problem) reason {
	if p.far != nil {
		r := *p.far
		r.Way = append([]string{p.what}, r.Way...)
		return r
	}
	at := c.pass.Fset.Position(p.pos)
	return reason{
		Rule: p.rule, What: p.what, Happens: p.happens, Instead: p.instead,
		Where: filepath.Base(at.Filename) + ":" + strconv.Itoa(at.Line),
	}
}

// node returns the one of a *types.Func, *types.Var, *ast.FuncLit or other declaration.
func (c *check) node(key any) *node {
	if n := c.nodes[key]; n != nil {
		return n
	}
	n := &node{reasons: map[string]reason{}}
	switch key := key.(type) {
	case *types.Func:
		n.name, n.fn = c.name(key), key
	case *types.Var:
		n.name, n.named = key.Name(), key
	case *ast.FuncLit:
		n.name, n.syntax = "a function literal", key
	}
	c.nodes[key] = n
	c.order = append(c.order, n)
	return n
}

// name is what to call a function here.
func (c *check) name(fn *types.Func) string {
	name := fn.Name()
	if recv := fn.Signature().Recv(); recv != nil {
		t := recv.Type()
		if p, ok := t.(*types.Pointer); ok {
			t = p.Elem()
		}
		if named, ok := types.Unalias(t).(*types.Named); ok {
			name = named.Obj().Name() + "." + name
		}
	}
	if fn.Pkg() != nil && fn.Pkg() != c.pass.Pkg {
		name = fn.Pkg().Name() + "." + name
	}
	return name
}

// here returns the node of what function returned, nil if its body is not to be looked at.
func (c *check) here(key any) *node {
	switch key := key.(type) {
	case *types.Func:
		n := c.nodes[key]
		if n == nil || n.syntax == nil || c.library && !c.inTest(n.syntax.Pos()) {
			return nil
		}
		return n
	case *types.Var:
		if key.Pkg() == c.pass.Pkg {
			return c.node(key)
		}
	case *ast.FuncLit:
		return c.node(key)
	}
	return nil
}
