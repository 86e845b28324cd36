package scopecheck

import (
	"go/ast"
	"go/types"
	"slices"

	"golang.org/x/tools/go/types/typeutil"
)

// function returns the *types.Func, *types.Var or *ast.FuncLit that an expression is, and nil if that can't be told.
func (c *check) function(e ast.Expr) any {
	switch e := ast.Unparen(e).(type) {
	case *ast.FuncLit:
		return e
	case *ast.IndexExpr:
		return c.function(e.X)
	case *ast.IndexListExpr:
		return c.function(e.X)
	case *ast.Ident:
		return c.object(e)
	case *ast.SelectorExpr:
		return c.object(e.Sel)
	case *ast.CallExpr:
		return c.resultOf(e)
	}
	return nil
}

func (c *check) object(name *ast.Ident) any {
	switch o := c.pass.TypesInfo.Uses[name].(type) {
	case *types.Func:
		if recv := o.Signature().Recv(); recv != nil && types.IsInterface(recv.Type()) {
			return nil
		}
		return o.Origin()
	case *types.Var:
		if _, ok := o.Type().Underlying().(*types.Signature); ok && !o.IsField() {
			return o
		}
	}
	return nil
}

// resultOf is function for what a call returns: what is converted, what package sync makes a function of that calls it, or the
// result of a function, which stands for all that this returns.
func (c *check) resultOf(call *ast.CallExpr) any {
	if len(call.Args) == 1 && c.pass.TypesInfo.Types[call.Fun].IsType() {
		return c.function(call.Args[0])
	}
	fn := typeutil.StaticCallee(c.pass.TypesInfo, call)
	if fn == nil {
		return nil
	}
	switch fullName(fn) {
	case "sync.OnceFunc", "sync.OnceValue", "sync.OnceValues":
		return c.function(call.Args[0])
	}
	if result := functionResult(fn.Origin()); result != nil {
		return result
	}
	return nil
}

// functionResult returns the result of a function that returns one function and nothing else.
func functionResult(fn *types.Func) *types.Var {
	results := fn.Signature().Results()
	if results.Len() != 1 {
		return nil
	}
	if _, ok := results.At(0).Type().Underlying().(*types.Signature); !ok {
		return nil
	}
	return results.At(0)
}

// named returns the functions with a name that an expression is, by way of variables too: var run = exec.Command.
func (c *check) named(e ast.Expr) []*types.Func {
	var found []*types.Func
	var seen []*types.Var
	var look func(ast.Expr)
	look = func(e ast.Expr) {
		switch key := c.function(e).(type) {
		case *types.Func:
			found = append(found, key)
		case *types.Var:
			if slices.Contains(seen, key) {
				return
			}
			seen = append(seen, key)
			for _, value := range c.values.all[key] {
				if value != nil {
					look(value)
				}
			}
		}
	}
	look(e)
	return found
}

// callees returns the functions with a name that a call may be one of. An interface's method is its own.
func (c *check) callees(call *ast.CallExpr) []*types.Func {
	if fn, ok := typeutil.Callee(c.pass.TypesInfo, call).(*types.Func); ok {
		return []*types.Func{fn}
	}
	return c.named(call.Fun)
}
