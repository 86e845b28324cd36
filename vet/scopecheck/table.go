package scopecheck

import (
	"go/ast"
	"go/token"
)

// rule is a mistake: what happens in a scope, and what to do instead. The diagnostics say both.
type rule struct {
	name    string
	happens string
	instead string
	when    func(*check, *ast.CallExpr) bool      // it is one, if not always
	origin  func(*check, *ast.CallExpr) token.Pos // what makes it one, of which it is enough to speak once
	starts  bool                                  // its last argument runs on another goroutine, which may enter a scope there
}

// only is a rule under a condition.
func (r rule) only(when func(*check, *ast.CallExpr) bool) rule {
	r.when = when
	return r
}

// but is a rule with another thing to do instead.
func (r rule) but(instead string) rule {
	r.instead = instead
	return r
}

// What is wrong, in the words of guise's manual.
var (
	goStatement = rule{name: "goroutine", happens: "the new goroutine runs as the server", instead: "use Scope.Go"}
	goroutine   = rule{name: "goroutine", happens: "what it is given runs on another goroutine, as the server", instead: "use Scope.Go, or do it here", starts: true}
	timeout     = rule{name: "goroutine", happens: "the handler runs on another goroutine, as the server", instead: "enter the scope in the handler"}
	subtest     = goroutine.but("enter a scope in the test that it runs")
	finaliser   = rule{name: "goroutine", happens: "what it is given runs on the runtime's own goroutine, as the server", instead: "clean up in the scope, with defer"}
	serving     = rule{name: "goroutine", happens: "it serves on goroutines of its own, as the server", instead: "accept outside of scopes, and enter one for each request"}
	shared      = rule{name: "goroutine", happens: "it may wait for what another caller runs, which is with that caller's rights", instead: "do it here"}
	pool        = rule{name: "goroutine", happens: "it opens connections on goroutines of its own, as the server", instead: "dial in the scope, and give it the connection"}

	lookup = rule{name: "network", happens: "look-ups run on other goroutines, as the server", instead: "look the name up before the scope"}
	dial   = rule{name: "network", happens: "look-ups and dialling may run on other goroutines, as the server",
		instead: "dial an address (net.DialTCP takes nothing else) or a Unix socket's path"}
	transport = rule{name: "network", happens: "its transport dials on goroutines of its own, as the server",
		instead: "dial in the scope and give a transport of its own the connection; over a pipe, use guisehttp.Transport"}

	program = rule{name: "program", happens: "the program's real uid is the server's, and it can become the server again; shells do so unasked",
		instead: "use Scope.Command or Scope.CommandIn"}

	ids = rule{name: "ids", happens: "it changes every thread of the process, those in other scopes too; guise may end the process for it",
		instead: "never call it while there are scopes; RunAs wears another token"}
	threadIDs = rule{name: "ids", happens: "it changes behind guise's back what the thread wears; guise may end the process for it",
		instead: "RunAs wears another token"}
	rawIDs = threadIDs.only(isRawIDs)

	unlock = rule{name: "unlock", happens: "the goroutine goes on elsewhere and another one gets the client's thread; guise ends the process if it finds out",
		instead: "never call it"}

	process = rule{name: "process", happens: "it changes the whole process, which is the server"}

	signal = rule{name: "real ids", happens: "it may signal what the server's real uid may",
		instead: `use Scope.Command("kill", …)`}
	trace = rule{name: "real ids", happens: "it goes by the real ids, which are the server's",
		instead: "do it in a program that Scope.Command starts"}
	access = rule{name: "real ids", happens: "it answers for the real ids, which are the server's",
		instead: "use faccessat with AT_EACCESS, or just try"}

	whoami = rule{name: "real ids", happens: "it answers for the real uid, which is the server's",
		instead: "use Scope.Token"}

	keep = rule{name: "keep", happens: "once the scope's function has returned Go panics and Command fails",
		instead: "use it in the function that it was given to"}
)

// table has the functions that are mistakes in a scope, by the name that types.Func.FullName gives them. What is not from the
// standard library is here where its own text would not tell, or not as well.
var table = map[string]rule{}

// add puts functions into the table.
func add(r rule, names ...string) {
	for _, name := range names {
		table[name] = r
	}
}

func init() {
	add(goroutine,
		"time.AfterFunc", "context.AfterFunc", "(*sync.WaitGroup).Go",
		"(*golang.org/x/sync/errgroup.Group).Go", "(*golang.org/x/sync/errgroup.Group).TryGo")
	add(subtest,
		"(*testing.T).Run", "(*testing.B).Run", "(*testing.B).RunParallel", "(*testing.F).Fuzz", "testing.Benchmark")
	add(timeout, "net/http.TimeoutHandler")
	add(shared,
		"(*golang.org/x/sync/singleflight.Group).Do", "(*golang.org/x/sync/singleflight.Group).DoChan")
	add(finaliser, "runtime.SetFinalizer", "runtime.AddCleanup")
	add(serving,
		"net/http.Serve", "net/http.ServeTLS", "net/http.ListenAndServe", "net/http.ListenAndServeTLS",
		"(*net/http.Server).Serve", "(*net/http.Server).ServeTLS", "(*net/http.Server).ListenAndServe", "(*net/http.Server).ListenAndServeTLS",
		"net/rpc.Accept", "(*net/rpc.Server).Accept", "net/rpc.ServeConn", "(*net/rpc.Server).ServeConn",
		"(*google.golang.org/grpc.Server).Serve",
		"net/http/httptest.NewServer", "net/http/httptest.NewTLSServer", "(*net/http/httptest.Server).Start", "(*net/http/httptest.Server).StartTLS")
	add(pool, "database/sql.Open", "database/sql.OpenDB")
	add(pool.but("use guisegrpc.Dial"),
		"google.golang.org/grpc.NewClient", "google.golang.org/grpc.Dial", "google.golang.org/grpc.DialContext")

	add(lookup,
		"net.LookupAddr", "net.LookupCNAME", "net.LookupHost", "net.LookupIP", "net.LookupMX", "net.LookupNS", "net.LookupSRV", "net.LookupTXT",
		"(*net.Resolver).LookupAddr", "(*net.Resolver).LookupCNAME", "(*net.Resolver).LookupHost", "(*net.Resolver).LookupIP",
		"(*net.Resolver).LookupIPAddr", "(*net.Resolver).LookupMX", "(*net.Resolver).LookupNS", "(*net.Resolver).LookupNetIP",
		"(*net.Resolver).LookupSRV", "(*net.Resolver).LookupTXT")
	add(lookup.only(names(0, 1)),
		"net.ResolveTCPAddr", "net.ResolveUDPAddr", "net.ResolveIPAddr")
	add(dial.only(names(0, 1)),
		"net.Dial", "net.DialTimeout", "(*net.Dialer).Dial", "crypto/tls.Dial", "(*crypto/tls.Dialer).Dial")
	add(dial.only(names(1, 2)),
		"(*net.Dialer).DialContext", "crypto/tls.DialWithDialer", "(*crypto/tls.Dialer).DialContext")
	add(dial.only(names(-1, 0)),
		"net/smtp.Dial", "net/smtp.SendMail")
	add(dial.only(names(0, 1)),
		"net/rpc.Dial", "net/rpc.DialHTTP", "net/rpc.DialHTTPPath", "net/rpc/jsonrpc.Dial", "net/textproto.Dial", "log/syslog.Dial")
	add(transport,
		"net/http.Get", "net/http.Head", "net/http.Post", "net/http.PostForm")
	add(transport.only(dialsLater),
		"(*net/http.Client).Do", "(*net/http.Client).Get", "(*net/http.Client).Head", "(*net/http.Client).Post", "(*net/http.Client).PostForm",
		"(*net/http.Transport).RoundTrip", "(net/http.RoundTripper).RoundTrip")

	add(program,
		"os/exec.Command", "os/exec.CommandContext", "os.StartProcess",
		"syscall.ForkExec", "syscall.StartProcess", "syscall.Exec", "golang.org/x/sys/unix.Exec")
	started := program.only(isPlainCommand)
	started.origin = madeAt
	add(started,
		"(*os/exec.Cmd).Start", "(*os/exec.Cmd).Run", "(*os/exec.Cmd).Output", "(*os/exec.Cmd).CombinedOutput")

	for _, call := range []string{"Setuid", "Setgid", "Setgroups", "Setreuid", "Setregid", "Setresuid", "Setresgid", "Seteuid", "Setegid"} {
		add(ids, "syscall."+call, "golang.org/x/sys/unix."+call)
	}
	add(ids.only(isRawIDs), "syscall.AllThreadsSyscall", "syscall.AllThreadsSyscall6")
	for _, call := range []string{"Setfsuid", "Setfsgid"} {
		// syscall's are for all threads, x/sys' for one.
		add(ids, "syscall."+call)
		add(threadIDs, "golang.org/x/sys/unix."+call)
	}
	add(threadIDs, "golang.org/x/sys/unix.SetfsuidRetUid", "golang.org/x/sys/unix.SetfsgidRetGid")
	add(threadIDs, "golang.org/x/sys/unix.Capset")
	for _, pkg := range []string{"syscall.", "golang.org/x/sys/unix."} {
		add(rawIDs, pkg+"Syscall", pkg+"Syscall6", pkg+"RawSyscall", pkg+"RawSyscall6", pkg+"SyscallNoError", pkg+"RawSyscallNoError")
		add(process.but("use absolute paths, or openat in a directory that was opened here"), pkg+"Chdir", pkg+"Fchdir", pkg+"Chroot")
		add(process.but("give the mode in full, and fchmod"), pkg+"Umask")
		add(signal, pkg+"Kill", pkg+"Tgkill")
		add(access, pkg+"Access")
		add(access.only(asksRealIDs), pkg+"Faccessat")
		add(trace, pkg+"PtraceAttach")
	}
	add(process.but("use absolute paths, or openat in a directory that was opened here"), "os.Chdir", "(*os.File).Chdir")
	add(whoami, "os/user.Current")
	add(signal, "golang.org/x/sys/unix.PidfdSendSignal")
	add(signal.only(isNotChild), "(*os.Process).Signal", "(*os.Process).Kill")
	add(trace,
		"golang.org/x/sys/unix.Prlimit", "golang.org/x/sys/unix.PtraceSeize",
		"golang.org/x/sys/unix.ProcessVMReadv", "golang.org/x/sys/unix.ProcessVMWritev")
}
