package scopecheck

import (
	"go/ast"
	"go/constant"
	"net"
	"net/netip"
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

// isRawIDs is the condition of raw system calls: the number of one that changes ids, by its name, since numbers differ.
func isRawIDs(c *check, call *ast.CallExpr) bool {
	if len(call.Args) == 0 {
		return false
	}
	var name string
	ast.Inspect(call.Args[0], func(n ast.Node) bool { // uintptr(unix.SYS_SETUID), too
		if id, ok := n.(*ast.Ident); ok && strings.HasPrefix(id.Name, "SYS_") {
			name = id.Name
		}
		return true
	})
	switch strings.TrimSuffix(name, "32") {
	case "SYS_SETUID", "SYS_SETGID", "SYS_SETGROUPS", "SYS_SETREUID", "SYS_SETREGID", "SYS_SETRESUID", "SYS_SETRESGID", "SYS_SETFSUID", "SYS_SETFSGID", "SYS_CAPSET":
		return true
	}
	return false
}
