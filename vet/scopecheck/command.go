package scopecheck

import (
	"go/ast"
	"go/token"
	"go/types"
)

// origin says where an exec.Cmd is from.
type origin int

const (
	unknownOrigin origin = iota
	fromExec
	fromScope
)

// originOf tells where an expression's exec.Cmd is from, with what made it, where that is certain.
func (c *check) originOf(e ast.Expr) (origin, ast.Node) {
	e = c.values.of(c.pass.TypesInfo, e)
	switch made := e.(type) {
	case *ast.UnaryExpr:
		if made.Op == token.AND {
			return c.originOf(made.X)
		}
	case *ast.CompositeLit:
		if isNamed(c.pass.TypesInfo.TypeOf(made), "os/exec", "Cmd") {
			return fromExec, made
		}
	case *ast.CallExpr:
		fns := c.callees(made)
		if len(fns) != 1 {
			break
		}
		switch fullName(fns[0]) {
		case "os/exec.Command", "os/exec.CommandContext":
			return fromExec, made
		case "(*" + guisePath + ".Scope).Command", "(*" + guisePath + ".Scope).CommandIn":
			return fromScope, made
		}
	}
	return unknownOrigin, nil
}

// receiver returns what a method is called of.
func receiver(call *ast.CallExpr) ast.Expr {
	if sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr); ok {
		return sel.X
	}
	return nil
}

// isPlainCommand is the condition of the methods that start an exec.Cmd: that it is surely none of a scope's.
func isPlainCommand(c *check, call *ast.CallExpr) bool {
	if receiver(call) == nil {
		return false
	}
	from, _ := c.originOf(receiver(call))
	return from == fromExec
}

func madeAt(c *check, call *ast.CallExpr) token.Pos {
	if _, at := c.originOf(receiver(call)); at != nil {
		return at.Pos()
	}
	return token.NoPos
}

// isNotChild is the condition of the methods that signal an os.Process: a command's own process may be signalled.
func isNotChild(c *check, call *ast.CallExpr) bool {
	e := receiver(call)
	if e == nil {
		return false
	}
	sel, ok := c.values.of(c.pass.TypesInfo, e).(*ast.SelectorExpr)
	return !ok || sel.Sel.Name != "Process" || !isCommand(c.pass.TypesInfo.TypeOf(sel.X))
}

func isCommand(t types.Type) bool {
	return isPointerTo(t, "os/exec", "Cmd") || isNamed(t, "os/exec", "Cmd")
}

// setsField looks for what is not to be set in a Scope.Command, in a scope or out of it.
func (c *check) setsField(to ast.Expr) {
	var path []string // the fields, from the command on
	e := ast.Unparen(to)
	for !isCommand(c.pass.TypesInfo.TypeOf(e)) {
		switch at := e.(type) {
		case *ast.SelectorExpr:
			path = append([]string{at.Sel.Name}, path...)
			e = ast.Unparen(at.X)
		case *ast.IndexExpr:
			e = ast.Unparen(at.X)
		case *ast.StarExpr:
			e = ast.Unparen(at.X)
		default:
			return
		}
	}
	if len(path) == 0 {
		return
	}
	r, ok := commandFields[path[0]]
	if !ok || path[0] == "SysProcAttr" && len(path) > 1 && path[1] != "Credential" && path[1] != "AmbientCaps" {
		return
	}
	if from, _ := c.originOf(e); from == fromScope {
		c.find(to.Pos(), r.name, types.ExprString(to)+" of a Scope.Command is set: "+r.happens+"; "+r.instead)
	}
}

// commandFields are the fields that a Scope.Command has its own way with.
var commandFields = map[string]rule{
	"Dir": {name: "command", happens: "the directory is entered as the server, and a client whose file system it is can hang the server",
		instead: "use Scope.CommandIn"},
	"SysProcAttr": {name: "command", happens: "the credentials in it are what lets the program become the client",
		instead: "leave SysProcAttr, its Credential and its AmbientCaps alone"},
	"Path": {name: "command", happens: "the command starts this program's own executable, which becomes the client and then runs what was named",
		instead: "name the program in the call of Scope.Command"},
	"Args": {name: "command", happens: "the arguments are what tells this program's own executable whom to become and what to run",
		instead: "give the arguments to Scope.Command"},
}
