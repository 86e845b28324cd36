package scopecheck

import (
	"go/ast"
	"go/token"
	"strings"
)

// walk notes what a body does on the goroutine that it runs on. Function literals in it get nodes of their own.
func (c *check) walk(n *node, body ast.Node) {
	ast.Inspect(body, func(at ast.Node) bool {
		switch at := at.(type) {
		case *ast.FuncLit:
			literal := c.node(at)
			literal.parent, literal.scopeParameter = n, c.scopeParameter(at.Type, at)
			c.walk(literal, at.Body)
			return false
		case *ast.GoStmt:
			c.goes(n, at)
			return false
		case *ast.CallExpr:
			c.called(n, at)
		case *ast.CompositeLit:
			if isNamed(c.pass.TypesInfo.TypeOf(at), "os/exec", "Cmd") {
				c.problem(n, at, "an exec.Cmd", program)
			}
		case *ast.AssignStmt:
			c.assigned(n, at)
		case *ast.SendStmt:
			c.sent(n, at)
		case *ast.RangeStmt:
			n.iterators = append(n.iterators, at.X)
		}
		return true
	})
}

// goes notes a go statement. Its arguments are evaluated here, what it calls is not.
func (c *check) goes(n *node, at *ast.GoStmt) {
	c.problem(n, at, "a go statement", goStatement)
	n.problems[len(n.problems)-1].starts = c.function(at.Call.Fun)
	c.captured(at)
	c.walk(n, at.Call.Fun)
	for _, arg := range at.Call.Args {
		c.walk(n, arg)
	}
}

// called notes a call: what the table says of it, and that it is one.
func (c *check) called(n *node, call *ast.CallExpr) {
	n.calls = append(n.calls, call)
	for _, fn := range c.callees(call) {
		switch name := fullName(fn); name {
		case "runtime.LockOSThread":
			n.locks = append(n.locks, call.Pos())
		case "runtime.UnlockOSThread":
			n.unlocks = append(n.unlocks, call.Pos())
		default:
			if r, ok := table[name]; ok && (r.when == nil || r.when(c, call)) {
				c.problem(n, call, c.name(fn), r)
				p := &n.problems[len(n.problems)-1]
				if r.origin != nil {
					p.origin = r.origin(c, call)
				}
				if r.starts {
					p.starts = c.function(call.Args[len(call.Args)-1])
				}
			}
		}
	}
}

func (c *check) problem(n *node, at ast.Node, what string, r rule) {
	n.problems = append(n.problems, problem{pos: at.Pos(), rule: r.name, what: what, happens: r.happens, instead: r.instead})
}

// inTest tells whether something is written in a test's file.
func (c *check) inTest(pos token.Pos) bool {
	return strings.HasSuffix(c.pass.Fset.Position(pos).Filename, "_test.go")
}
