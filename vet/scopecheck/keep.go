package scopecheck

import (
	"go/ast"
	"go/token"
	"go/types"
)

// assigned looks at an assignment: one to a field of a Scope.Command, and one that keeps a scope.
func (c *check) assigned(n *node, at *ast.AssignStmt) {
	for _, to := range at.Lhs {
		c.setsField(to)
	}
	if len(at.Lhs) != len(at.Rhs) || at.Tok != token.ASSIGN {
		return
	}
	for i, to := range at.Lhs {
		name := c.scopeIn(at.Rhs[i])
		if name == nil {
			continue
		}
		c.later = append(c.later, func() {
			if !c.outlives(n, to, name) || c.forgotten(n, to) {
				return
			}
			c.find(at.Pos(), keep.name, "the *guise.Scope "+name.Name+" is assigned to "+types.ExprString(to)+", which lasts longer than the scope: "+
				keep.happens+"; "+keep.instead)
		})
	}
}

// sent looks at a send.
func (c *check) sent(n *node, at *ast.SendStmt) {
	if name := c.scopeIn(at.Value); name != nil && c.outlives(n, at.Chan, name) {
		c.find(at.Pos(), keep.name, "the *guise.Scope "+name.Name+" is sent on a channel: "+keep.happens+"; "+keep.instead)
	}
}

// captured looks for scopes that a go statement takes along. One that the new goroutine has of its own is not.
func (c *check) captured(at *ast.GoStmt) {
	found := map[*types.Var]bool{}
	ast.Inspect(at, func(n ast.Node) bool {
		name, ok := n.(*ast.Ident)
		if !ok {
			return true
		}
		variable := c.scopeVariable(name)
		if variable == nil || found[variable] || at.Pos() <= variable.Pos() && variable.Pos() < at.End() {
			return true
		}
		found[variable] = true
		c.find(name.Pos(), keep.name, "the *guise.Scope "+name.Name+" is captured by a go statement, whose goroutine is not in the scope: "+
			keep.happens+"; "+keep.instead)
		return true
	})
}

// scopeIn returns the scope's name in a value that holds it for certain: the name itself, or it in a composite literal or an append.
func (c *check) scopeIn(value ast.Expr) *ast.Ident {
	switch value := ast.Unparen(value).(type) {
	case *ast.Ident:
		if c.scopeVariable(value) != nil {
			return value
		}
	case *ast.UnaryExpr:
		if value.Op == token.AND {
			return c.scopeIn(value.X)
		}
	case *ast.KeyValueExpr:
		return c.scopeIn(value.Value)
	case *ast.CompositeLit:
		for _, e := range value.Elts {
			if name := c.scopeIn(e); name != nil {
				return name
			}
		}
	case *ast.CallExpr:
		if name, ok := ast.Unparen(value.Fun).(*ast.Ident); ok && c.pass.TypesInfo.Uses[name] == types.Universe.Lookup("append") {
			for _, e := range value.Args[1:] {
				if name := c.scopeIn(e); name != nil {
					return name
				}
			}
		}
	}
	return nil
}

// scopeVariable returns the parameter that a name is if that is a scope.
func (c *check) scopeVariable(name *ast.Ident) *types.Var {
	variable, ok := c.pass.TypesInfo.Uses[name].(*types.Var)
	if !ok || variable.Kind() != types.ParamVar || !isScope(variable.Type()) || c.library && !c.inTest(name.Pos()) {
		return nil
	}
	return variable
}

// outlives tells whether a place is there for longer than the function that the scope was given to: something outside of that, or
// of its receiver if guise was given it as a method.
func (c *check) outlives(n *node, to ast.Expr, scope *ast.Ident) bool {
	root := c.root(to)
	if root == nil || root.Name() == "_" {
		return false
	}
	if root.Parent() == root.Pkg().Scope() {
		return true
	}
	function := c.scopeVariable(scope).Parent()
	if root.Parent() == function { // a receiver or another parameter
		return root.Kind() == types.RecvVar && n.given
	}
	return root.Parent() != nil && !within(root.Parent(), function)
}

func within(s, outer *types.Scope) bool {
	for ; s != nil; s = s.Parent() {
		if s == outer {
			return true
		}
	}
	return false
}

// root returns the variable that an expression is a part of, nil if that is not certain.
func (c *check) root(e ast.Expr) *types.Var {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		variable, _ := c.pass.TypesInfo.ObjectOf(e).(*types.Var)
		return variable
	case *ast.SelectorExpr:
		if name, ok := e.X.(*ast.Ident); ok {
			if _, ok := c.pass.TypesInfo.Uses[name].(*types.PkgName); ok {
				return c.root(e.Sel)
			}
		}
		return c.root(e.X)
	case *ast.IndexExpr:
		return c.root(e.X)
	case *ast.StarExpr:
		return c.root(e.X)
	}
	return nil
}

// forgotten tells whether a function sets a place to nil, before it returns one hopes.
func (c *check) forgotten(n *node, to ast.Expr) bool {
	for n.syntax == nil && n.parent != nil {
		n = n.parent
	}
	if n.syntax == nil {
		return false
	}
	place, found := types.ExprString(to), false
	ast.Inspect(n.syntax, func(at ast.Node) bool {
		if set, ok := at.(*ast.AssignStmt); ok && len(set.Lhs) == len(set.Rhs) {
			for i, to := range set.Lhs {
				found = found || c.pass.TypesInfo.Types[set.Rhs[i]].IsNil() && types.ExprString(to) == place
			}
		}
		return !found
	})
	return found
}
