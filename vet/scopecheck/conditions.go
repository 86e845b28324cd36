package scopecheck

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/tools/go/types/typeutil"
)

// names is the condition of dialling and resolving: that an argument is, or may be, a name that has to be looked up. With no argument
// that is the network it is TCP.
func names(network, address int) func(*check, *ast.CallExpr) bool {
	return func(c *check, call *ast.CallExpr) bool {
		if address >= len(call.Args) {
			return false
		}
		if network >= 0 {
			name, ok := c.constantString(call.Args[network])
			if !ok || strings.HasPrefix(name, "unix") {
				return false // a network that is not known is as often as not Unix'
			}
		}
		return !c.isAddress(call.Args[address])
	}
}

// isAddress tells whether an expression is surely one that needs no looking up.
func (c *check) isAddress(e ast.Expr) bool {
	if call, ok := c.values.of(c.pass.TypesInfo, e).(*ast.CallExpr); ok && len(call.Args) == 2 {
		if fn := typeutil.StaticCallee(c.pass.TypesInfo, call); fn != nil && fullName(fn) == "net.JoinHostPort" {
			e = call.Args[0]
		}
	}
	return c.isPlainAddress(e)
}

// isPlainAddress is isAddress for what is not joined of a host and a port.
func (c *check) isPlainAddress(e ast.Expr) bool {
	if value, ok := c.constantString(e); ok {
		host, _, err := net.SplitHostPort(value)
		if err != nil {
			host = value // of an IP network there is no port
		}
		_, err = netip.ParseAddr(host)
		return host == "" || err == nil
	}
	call, ok := c.values.of(c.pass.TypesInfo, e).(*ast.CallExpr)
	if !ok {
		return false
	}
	fn := typeutil.StaticCallee(c.pass.TypesInfo, call)
	if fn == nil {
		return isMethodOf(c, call, "net", "Addr") // of a connection or a listener
	}
	switch fullName(fn) {
	case "(net/netip.AddrPort).String", "(net/netip.Addr).String", "(*net.TCPAddr).String", "(*net.UDPAddr).String", "(*net.IPAddr).String", "(net.IP).String":
		return true
	}
	return false
}

// isMethodOf tells whether an interface's method is called.
func isMethodOf(c *check, call *ast.CallExpr, path, name string) bool {
	e := receiver(call)
	return e != nil && isNamed(c.pass.TypesInfo.TypeOf(e), path, name)
}

func (c *check) constantString(e ast.Expr) (string, bool) {
	e = c.values.of(c.pass.TypesInfo, e)
	if e == nil {
		return "", false
	}
	value := c.pass.TypesInfo.Types[e].Value
	if value == nil || value.Kind() != constant.String {
		return "", false
	}
	return constant.StringVal(value), true
}

// atEaccess is AT_EACCESS, on every architecture of Linux.
const atEaccess = 0x200

// asksRealIDs is the condition of faccessat: flags without AT_EACCESS.
func asksRealIDs(c *check, call *ast.CallExpr) bool {
	if len(call.Args) != 4 {
		return false
	}
	value := c.pass.TypesInfo.Types[call.Args[3]].Value
	if value == nil {
		return false
	}
	flags, ok := constant.Int64Val(constant.ToInt(value))
	return ok && flags&atEaccess == 0
}

// isRawIDs is the condition of raw system calls: the number of one that changes ids. Package syscall, or x/sys, which is called, has the
// architecture's numbers.
func isRawIDs(c *check, call *ast.CallExpr) bool {
	return c.isSystemCall(call, "SETUID", "SETGID", "SETGROUPS", "SETREUID", "SETREGID", "SETRESUID", "SETRESGID", "SETFSUID", "SETFSGID", "CAPSET")
}

func (c *check) isSystemCall(call *ast.CallExpr, names ...string) bool {
	pkg := c.callees(call)[0].Pkg()
	number := c.pass.TypesInfo.Types[call.Args[0]].Value
	if number == nil {
		return false
	}
	return slices.ContainsFunc(names, func(name string) bool {
		for _, name := range []string{"SYS_" + name, "SYS_" + name + "32"} {
			known, ok := pkg.Scope().Lookup(name).(*types.Const)
			if ok && constant.Compare(constant.ToInt(number), token.EQL, known.Val()) {
				return true
			}
		}
		return false
	})
}
