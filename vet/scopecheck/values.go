package scopecheck

import (
	"go/ast"
	"go/token"
	"go/types"

	"golang.org/x/tools/go/analysis"
)

// values says what is assigned to the variables of a package, as far as it is seen.
type values struct {
	all     map[*types.Var][]ast.Expr // nil for something unknown
	changed map[*types.Var]bool       // those of which a part is assigned to
}

func valuesOf(pass *analysis.Pass) values {
	v := values{map[*types.Var][]ast.Expr{}, map[*types.Var]bool{}}
	set := func(to, value ast.Expr) {
		switch to := ast.Unparen(to).(type) {
		case *ast.Ident:
			if variable, ok := pass.TypesInfo.ObjectOf(to).(*types.Var); ok {
				v.all[variable] = append(v.all[variable], value)
			}
		case *ast.SelectorExpr:
			if name, ok := ast.Unparen(to.X).(*ast.Ident); ok {
				if variable, ok := pass.TypesInfo.ObjectOf(name).(*types.Var); ok {
					v.changed[variable] = true
				}
			}
		}
	}
	for _, file := range pass.Files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if fn, ok := pass.TypesInfo.Defs[n.Name].(*types.Func); ok && n.Body != nil {
					if result := functionResult(fn); result != nil {
						v.all[result] = append(v.all[result], returned(n.Body)...)
					}
				}
			case *ast.AssignStmt:
				for i, to := range n.Lhs {
					if len(n.Rhs) == len(n.Lhs) && (n.Tok == token.ASSIGN || n.Tok == token.DEFINE) {
						set(to, n.Rhs[i])
					} else {
						set(to, nil)
					}
				}
			case *ast.ValueSpec:
				for i, to := range n.Names {
					switch {
					case len(n.Values) == len(n.Names):
						set(to, n.Values[i])
					case len(n.Values) > 0:
						set(to, nil)
					}
				}
			case *ast.RangeStmt:
				for _, to := range []ast.Expr{n.Key, n.Value} {
					if to != nil {
						set(to, nil)
					}
				}
			case *ast.Field: // a parameter or result; of a struct's nothing is known anyway
				for _, name := range n.Names {
					set(name, nil)
				}
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					set(n.X, nil) // somebody else may set it
				}
			}
			return true
		})
	}
	return v
}

// of returns the one expression that e stands for: itself, or the only value of the variable that it is. It is nil where there
// are several or one that is not known.
func (v values) of(info *types.Info, e ast.Expr) ast.Expr {
	for range 8 { // a variable of a variable
		e = ast.Unparen(e)
		name, ok := e.(*ast.Ident)
		if !ok {
			return e
		}
		variable, ok := info.ObjectOf(name).(*types.Var)
		if !ok {
			return e
		}
		if len(v.all[variable]) != 1 || v.all[variable][0] == nil {
			return nil
		}
		e = v.all[variable][0]
	}
	return nil
}

// returned gives what the return statements of a function with one result return.
func returned(body *ast.BlockStmt) []ast.Expr {
	var all []ast.Expr
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ReturnStmt:
			all = append(all, n.Results...)
		}
		return true
	})
	return all
}
