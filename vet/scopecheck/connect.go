package scopecheck

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
)

// connect finds who calls whom, and what runs in scopes, also by way of functions that call or enter what they are given.
func (c *check) connect() {
	for _, n := range c.order {
		n.entry = n.scopeParameter
	}
	for {
		before := c.size()
		for i := 0; i < len(c.order); i++ { // which grows
			c.connectNode(c.order[i])
		}
		// What a function does with its parameters comes from those that it calls, which mostly are written below it.
		for _, n := range slices.Backward(c.order) {
			c.connectNode(n)
		}
		if c.size() == before {
			return
		}
	}
}

func (c *check) connectNode(n *node) {
	for _, call := range n.calls {
		c.connectCall(n, call)
	}
	for _, p := range n.problems {
		c.here(p.starts) // a variable gets its node
	}
	for _, iterator := range n.iterators {
		if to := c.here(c.function(iterator)); to != nil {
			n.connect(iterator.Pos(), to)
		}
	}
	if n.named != nil {
		c.connectVariable(n.named, n)
	}
}

// size grows with every thing that connect finds.
func (c *check) size() int {
	size := len(c.nodes)
	for _, n := range c.order {
		size += len(n.edges) + len(n.problems)
		if n.entry {
			size++
		}
	}
	return size
}

func (c *check) connectCall(n *node, call *ast.CallExpr) {
	if to := c.here(c.function(call.Fun)); to != nil {
		n.connect(call.Pos(), to)
	}
	for _, fn := range c.callees(call) {
		c.connectCallOf(n, call, fn.Origin())
	}
}

// connectCallOf is connectCall for one of the functions that may be called there.
func (c *check) connectCallOf(n *node, call *ast.CallExpr, fn *types.Func) {
	name := fullName(fn)
	if i, ok := enters[name]; ok {
		n.enters = n.enters || name != scopeGo
		c.enter(n, call, i)
		return
	}
	if callsWhatItIsGiven(fn, name) {
		for i := range call.Args {
			c.callArgument(n, call, i)
		}
		return
	}
	if to := c.here(fn); to != nil {
		for i := range fn.Signature().Params().Len() {
			c.connectArgument(n, call, i, c.doesWithParameter(fn, to, i))
		}
		return
	}
	if s := c.imported(fn); s != nil {
		for _, r := range s.Reasons {
			c.far(n, call.Pos(), fn, r)
		}
		if s.Locks && !slices.Contains(n.locks, call.Pos()) {
			n.locks = append(n.locks, call.Pos())
		}
		for _, i := range s.Calls {
			c.callArgument(n, call, i)
		}
		for _, i := range s.Enters {
			n.enters = true
			c.enter(n, call, i)
		}
	}
}

// forgiveEntering drops go statements, and calls that start one, whose goroutine enters a scope of its own: who writes that knows whom it runs as.
func (c *check) forgiveEntering() {
	for _, n := range c.order {
		n.problems = slices.DeleteFunc(n.problems, func(p problem) bool {
			to := c.here(p.starts)
			return to != nil && (to.enters || to.syntax == nil && slices.ContainsFunc(to.edges, func(e edge) bool { return e.to.enters }))
		})
	}
}

// far notes that a function of another package, which is called at a place, comes to something.
func (c *check) far(n *node, pos token.Pos, fn *types.Func, r reason) {
	p := problem{pos: pos, rule: r.Rule, what: c.name(fn), far: &r}
	if !slices.ContainsFunc(n.problems, func(q problem) bool { return q.pos == pos && q.rule == p.rule && q.what == p.what }) {
		n.problems = append(n.problems, p)
	}
}

// use is what a function does with a function that it is given.
type use struct{ calls, enters bool }

func (c *check) connectArgument(n *node, call *ast.CallExpr, i int, u use) {
	if u.enters {
		n.enters = true
		c.enter(n, call, i)
	}
	if u.calls {
		c.callArgument(n, call, i)
	}
}

func (c *check) doesWithParameter(fn *types.Func, n *node, i int) use {
	parameter := fn.Signature().Params().At(i)
	if _, ok := parameter.Type().Underlying().(*types.Signature); !ok {
		return use{}
	}
	p := c.nodes[parameter]
	return use{calls: p != nil && n.reaches(p), enters: p != nil && p.entry}
}

// callArgument notes that n calls an argument, by way of what it gives it to.
func (c *check) callArgument(n *node, call *ast.CallExpr, i int) {
	if i >= len(call.Args) {
		return
	}
	if to := c.here(c.function(call.Args[i])); to != nil {
		n.connect(call.Args[i].Pos(), to)
	}
	for _, fn := range c.named(call.Args[i]) {
		if s := c.imported(fn); s != nil {
			for _, r := range s.Reasons {
				c.far(n, call.Args[i].Pos(), fn, r)
			}
		}
	}
}

// enter notes that an argument runs in a scope.
func (c *check) enter(n *node, call *ast.CallExpr, i int) {
	if i >= len(call.Args) {
		return
	}
	key := c.function(call.Args[i])
	if to := c.here(key); to != nil {
		to.entry = true
		if _, ok := key.(*types.Func); ok {
			to.given = true
		}
	}
	for _, fn := range c.named(call.Args[i]) {
		if s := c.imported(fn); s != nil {
			// It has no node: what it comes to is said where it is given.
			for _, r := range s.Reasons {
				c.find(call.Args[i].Pos(), r.Rule, r.message(c.name(fn)))
			}
		}
	}
}

// connectVariable connects a variable with what is assigned to it. What runs in a scope by one name does so
// by every name. A parameter is in a scope if its function, or what is written in that, calls it in one.
func (c *check) connectVariable(variable *types.Var, n *node) {
	for _, value := range c.values.all[variable] {
		if value == nil {
			continue
		}
		to := c.here(c.function(value))
		if to == nil || to == n {
			continue
		}
		n.connect(value.Pos(), to)
		if n.entry {
			to.entry = true
		}
	}
	if variable.Kind() != types.ParamVar {
		return
	}
	for _, m := range c.order {
		if m.entry && variable.Parent().Contains(m.body()) && m.reaches(n) {
			n.entry = true
			return
		}
	}
}

// body is where the body of a function begins.
func (n *node) body() token.Pos {
	switch at := n.syntax.(type) {
	case *ast.FuncDecl:
		return at.Body.Pos()
	case *ast.FuncLit:
		return at.Body.Pos()
	}
	return token.NoPos
}

func (n *node) connect(pos token.Pos, to *node) {
	e := edge{pos, to}
	if !slices.Contains(n.edges, e) {
		n.edges = append(n.edges, e)
	}
}

// reaches tells whether a call of n comes to one of to.
func (n *node) reaches(to *node) bool {
	seen := map[*node]bool{}
	var look func(*node) bool
	look = func(n *node) bool {
		if n == to {
			return true
		}
		if seen[n] {
			return false
		}
		seen[n] = true
		return slices.ContainsFunc(n.edges, func(e edge) bool { return look(e.to) })
	}
	return look(n)
}

// callsWhatItIsGiven tells whether a function of the standard library calls functions that it is given before it returns, on the
// same goroutine.
func callsWhatItIsGiven(fn *types.Func, name string) bool {
	if fn.Pkg() == nil {
		return false
	}
	switch fn.Pkg().Path() {
	case "bytes", "maps", "slices", "sort", "strings":
		return true
	}
	switch name {
	case "path/filepath.Walk", "path/filepath.WalkDir", "io/fs.WalkDir", "(*sync.Once).Do", "(*sync.Map).Range",
		"(*regexp.Regexp).ReplaceAllFunc", "(*regexp.Regexp).ReplaceAllStringFunc",
		"iter.Pull", "iter.Pull2", // on goroutines that take the thread over
		"runtime/pprof.Do", "runtime/trace.WithRegion", "testing.AllocsPerRun",
		"(syscall.RawConn).Control", "(syscall.RawConn).Read", "(syscall.RawConn).Write":
		return true
	}
	return false
}
