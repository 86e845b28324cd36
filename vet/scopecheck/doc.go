// Package scopecheck finds what does not do in a scope of guise's what it seems to do.
//
// A scope is a function that is given to guise.RunAs, to RunAsClient of a guise.Conn or to Go of a guise.Scope, and what it calls. In
// it the thread wears the client's identity where the kernel asks for effective ids. What does not go by those, or goes elsewhere, is
// the server's: the manual of guise lists it ("What stays the server's"). This analyzer reports, in a scope:
//
//	goroutine  go statements, unless the goroutine enters a scope of its own at once; time.AfterFunc, context.AfterFunc,
//	           sync.WaitGroup.Go, errgroup, unless what they are given enters one; singleflight, finalisers, servers,
//	           http.TimeoutHandler, sql.Open, gRPC's clients, subtests
//	network    look-ups of names, net.Dial and its like of what is or may be a name, requests over HTTP by package http's own
//	           transport. Addresses in numbers, Unix sockets, and a transport that is given a connection are right; so is
//	           a network or a client of which nothing is known
//	program    os/exec, os.StartProcess, syscall.ForkExec and Exec. Commands of Scope.Command are right
//	ids        syscall.Setuid and its kin, also as raw system calls
//	unlock     runtime.UnlockOSThread without a LockOSThread before it in the same function
//	process    changing the directory, the root or the umask, which are the whole process's
//	real ids   kill, ptrace, prlimit, process_vm_readv, access, faccessat without AT_EACCESS, user.Current. A command's own Process may be
//	           signalled
//	keep       a *guise.Scope that is assigned to what lasts longer, sent on a channel from outside, or captured by a go statement
//
// and, in a scope or out of it:
//
//	command    setting Dir, Path, Args, or the credentials in SysProcAttr, of a Scope.Command
//
// These words are the diagnostics' categories. The table of functions is in table.go.
//
// # What is followed
//
// Functions and methods that are called by name are followed, through this package and the others of the modules that are worked on, and so
// are variables of functions (var run = exec.Command), what a function of the same package returns, and iterators that are ranged over. What
// is wrong in a function is reported where it is called in the scope, with the place that it comes to. A function that calls what
// it is given, or runs it in a scope, passes that on: func as(c *guise.Conn, fn func() error) error is as good as RunAsClient, and the
// function literals that filepath.WalkDir and package slices are given are in the scope. A function with a
// parameter of type *guise.Scope runs in that scope, whoever calls it.
//
// Not followed are interfaces, function values in fields, slices (variadic parameters, too) and maps, those that are sent on channels, variables
// and returned functions of other packages, C, and HTTP's and gRPC's handlers under middleware that enters the scope. A module that is
// replaced by a directory is one of others, unless it is in the go.work file. The standard library is what the table says of it. Modules of others are followed with the flag
// -scopecheck.deps only: somewhere deep down nearly everything starts a goroutine. guise's own packages are right in scopes.
//
// Where it is not certain that something is wrong it is mostly not reported.
//
// # Silence
//
// A comment on the line, or on a line of its own above, says that something is right, and why. Of a statement of several
// lines it is the first:
//
//	go audit(name) //guise:scope-ok the audit log is the server's
//
// Without a reason it is a finding itself. In a function that is called in a scope it holds for all its callers. The flag
// -scopecheck.tests=false leaves out the files of tests.
package scopecheck
