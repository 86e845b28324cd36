package scopecheck

import (
	"go/ast"
	"go/types"
	"strings"
)

// dialsLater is the condition of requests over HTTP: that they go by a transport of package http, which dials when it likes, and is not seen
// to be given a connection instead. Of a client that comes from elsewhere nothing is known: it may have guisehttp's.
func dialsLater(c *check, call *ast.CallExpr) bool {
	e := receiver(call)
	if e == nil || c.fieldsAreSet(e) {
		return false
	}
	if c.isDefault(e) || c.isZeroClient(e) {
		return true
	}
	client, ok := c.literal(e)
	if !ok {
		return false
	}
	if isNamed(c.pass.TypesInfo.TypeOf(client), "net/http", "Client") {
		e = field(client, "Transport")
		if e == nil || c.isDefault(e) {
			return true
		}
		if c.fieldsAreSet(e) {
			return false
		}
	}
	transport, ok := c.literal(e)
	if !ok || !isNamed(c.pass.TypesInfo.TypeOf(transport), "net/http", "Transport") {
		return false
	}
	for _, name := range []string{"DialContext", "Dial", "DialTLSContext", "DialTLS"} {
		if f := field(transport, name); f != nil {
			literal, ok := c.values.of(c.pass.TypesInfo, f).(*ast.FuncLit)
			return ok && dials(literal)
		}
	}
	return true
}

// isDefault tells whether an expression is http.DefaultClient or http.DefaultTransport.
func (c *check) isDefault(e ast.Expr) bool {
	sel, ok := c.values.of(c.pass.TypesInfo, e).(*ast.SelectorExpr)
	if !ok {
		return false
	}
	o := c.pass.TypesInfo.Uses[sel.Sel]
	return o != nil && o.Pkg() != nil && o.Pkg().Path() == "net/http" && (o.Name() == "DefaultClient" || o.Name() == "DefaultTransport")
}

// isZeroClient tells whether an expression is a variable of type http.Client that is declared and never set.
func (c *check) isZeroClient(e ast.Expr) bool {
	name, ok := ast.Unparen(e).(*ast.Ident)
	if !ok {
		return false
	}
	variable, ok := c.pass.TypesInfo.Uses[name].(*types.Var)
	return ok && variable.Pkg() == c.pass.Pkg && isNamed(variable.Type(), "net/http", "Client") && len(c.values.all[variable]) == 0
}

// fieldsAreSet tells whether fields of a variable are set anywhere, so that what it was made with does not tell all.
func (c *check) fieldsAreSet(e ast.Expr) bool {
	name, ok := ast.Unparen(e).(*ast.Ident)
	if !ok {
		return false
	}
	variable, ok := c.pass.TypesInfo.Uses[name].(*types.Var)
	return ok && c.values.changed[variable]
}

// literal returns the composite literal that an expression is, or is a pointer to.
func (c *check) literal(e ast.Expr) (*ast.CompositeLit, bool) {
	e = c.values.of(c.pass.TypesInfo, e)
	if address, ok := e.(*ast.UnaryExpr); ok {
		e = ast.Unparen(address.X)
	}
	literal, ok := e.(*ast.CompositeLit)
	return literal, ok
}

func field(literal *ast.CompositeLit, name string) ast.Expr {
	for _, e := range literal.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			if key, ok := pair.Key.(*ast.Ident); ok && key.Name == name {
				return pair.Value
			}
		}
	}
	return nil
}

// dials tells whether a function calls one that is called so.
func dials(literal *ast.FuncLit) bool {
	found := false
	ast.Inspect(literal.Body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			switch fun := ast.Unparen(call.Fun).(type) {
			case *ast.Ident:
				found = found || strings.HasPrefix(strings.ToLower(fun.Name), "dial")
			case *ast.SelectorExpr:
				found = found || strings.HasPrefix(fun.Sel.Name, "Dial")
			}
		}
		return !found
	})
	return found
}
