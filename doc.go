// Package guise lets a Linux service act as the client that calls it, as Windows NT's named pipes do. A server accepts a client
// on a pipe and runs a function with the client's ids, groups and capabilities: what the function does to files, sockets and
// other pipes the kernel judges as the client's doing. The client says how far the server may go.
//
//	l, err := guise.Listen("spool", nil)
//	...
//	c, err := l.AcceptPipe()
//	...
//	n, err := c.Read(request)
//	...
//	err = c.RunAsClient(func(s *guise.Scope) error {
//		f, err := os.Create(path) // with the client's rights; the file is the client's
//		...
//	})
//
// Three words are used throughout. A token is a security context: ids, groups, capabilities. The quality of service (QoS) is
// what a client allows when it opens a pipe. A scope is the stretch in which a goroutine, locked to its thread, wears a token.
//
// The documents beside the source say more: docs/semantics.md what guise promises and how that compares with NT, docs/protocol.md
// what goes over the wire, docs/security.md what is trusted and what can go wrong.
//
// # Getting started
//
// A server calls [Listen] and [Listener.AcceptPipe]. A [Listener] is a [net.Listener] and a [Conn] a [net.Conn], so they also
// work under net/http and the like; [ListenOn] and [ListenFile] make a Listener of a socket that is there already, such as one
// from systemd. A client calls [Dial], or any program that speaks to Unix sockets is one: curl, socat, Python.
//
// Acting as others takes CAP_SETUID and CAP_SETGID, and no more: root has them, and a service that is not root gets them from
// its service manager (AmbientCapabilities= of systemd). Without them a server can still tell who its clients are, and act as
// those whose context is its own; everything else is [ErrPrivilege]. A server that is not root never acts as uid 0.
//
// Static tracking takes Linux 4.13, dynamic tracking Linux 6.9, clients that are root Linux 6.5. Package
// [github.com/guise-project/guise/features] tells what is there. The module is for amd64 and arm64.
//
// # Names and places
//
// A pipe's name is of letters, digits, '.', '_' and '-', at most 64 bytes, and is folded to lower case. \\.\pipe\NAME is the same
// name. Root's pipes are in /run/guise/pipe, where nobody else can take a name, a user's own in $XDG_RUNTIME_DIR/guise/pipe; a
// client looks in the first before the second. The variable GUISE_DIR replaces both, unless the program has more rights than
// whoever started it. A name with a slash in it is a socket's own path. Names on other machines (\\HOST\pipe\NAME) are for package
// [github.com/guise-project/guise/smb].
//
// Listen insists that nobody else can write to the directory or move it, so /tmp itself won't do. Clients that have to know who
// serves them use [Dialer].CheckServer, which is asked before anything is sent.
//
// # Other machines
//
// ListenConfig.Network publishes a pipe to this machine's Samba server, which carries it to clients on other machines: Windows, the
// smb package, anything that speaks SMB. They come out of the same Accept, as the accounts that Samba maps them to. Their tracking is
// static and their level Impersonation, because SMB says neither. What came over the network has no credentials to go on with: in such a
// scope, and in those of servers behind it, opening a pipe on another machine is [ErrNoDelegation]. docs/machines.md has the rest.
//
// # Tokens
//
// [Conn.Client] returns the client's [github.com/guise-project/guise/token.Token]. It is made of what the kernel froze when the
// client connected, or of what the client announced and the kernel proved since; nothing is inferred by looking at the client's
// process. [RunAs] takes any token: token.Of makes one of any Unix socket's peer, token.Lookup of an account's name, token.Self of
// the calling thread.
//
// Some contexts are never worn ([ErrNotWearable]): ids that the kernel can't map, which it reports as those of nobody (65534), so
// a client that runs as nobody can't be acted for; processes outside the server's pid namespace; and uid 0 of another user or
// mount namespace, unless ListenConfig.AllowForeignRoot says so.
//
// A client other than root brings no capabilities into a scope. Root's brings those that its process was seen to have when it was
// accepted (dynamic: when the scope is entered), and never more than the server has.
//
// # Quality of service
//
// A client states three things, and may leave each unstated:
//
//	Level           Anonymous       the server does not learn who calls, and does not act
//	                Identification  it learns who calls (Conn.Client), and does not act
//	                Impersonation   it may act as the client on this machine; the default
//	                Delegation      the same on this machine
//	Tracking        Static          the context is the one that opened the pipe; the default
//	                Dynamic         the context is the client's of now, also while a scope lasts
//	EffectiveOnly                   only enabled capabilities count
//
// A listener may prefer a tracking for clients that state none (ListenConfig.Tracking); what a client states wins. It may turn
// away clients that state less than a level (ListenConfig.Level). A client that does not speak guise's protocol is static, at level
// Impersonation. [Conn.QoS] reports what is in force.
//
// The levels bind this package, in servers that use it. Nothing binds a privileged server that does not: see docs/security.md.
// ListenConfig.Allow, which decides who gets in at all, sees who connects whatever the level.
//
// # When a server can act
//
// A server knows the QoS and can act once something has come from the client: the first byte that guise's own clients send when
// they open the pipe, a plain client's first data, or its end. Before that [Conn.RunAsClient] and [Conn.Client] fail with
// [ErrNoDataRead]. A server that reads first never sees this; one that speaks first calls [Conn.WaitClient]. Both still work when
// the client has closed or gone.
//
// # Scopes
//
// RunAsClient and RunAs call their function on the calling goroutine. Before, they lock it to its thread and change that thread
// alone: effective uid and gid, supplementary groups, effective capabilities. Afterwards they restore exactly what was there,
// however the function ended: by a return, a panic or [runtime.Goexit]. They are all or nothing: if the token can't be worn whole
// the function is not called, and a thread whose own ids can't be restored runs nothing more: the process ends with exit status
// 70 and a line on standard error. Scopes nest.
//
// A client may change how the thread that wears it is scheduled, so a thread that has been in a scope is put back to what it is known
// to be: what a program does to all its threads stays, and so does what it did to one, on a goroutine locked to it, before its first scope;
// a later change of one thread stays if it is made with [github.com/guise-project/guise/thread.Reschedule].
//
// Keep a scope short: what is needed of the client's rights, and no more. Open files in it; read and write them, and answer the
// client, after it. A descriptor keeps the rights that it was opened with, inside a scope and outside.
//
// # What stays the server's
//
// A scope changes who the thread is where the kernel asks for effective ids. These stay the server's, or get it wrong:
//
//   - A go statement, and whatever starts goroutines or hands work to them (time.AfterFunc, worker pools, errgroup,
//     http.Transport, the dialling of several addresses and name lookups in package net): those goroutines run as the server. Use
//     [Scope.Go], which runs a function in the same scope and is waited for. Dial in the scope and give the transport the
//     connection.
//   - Package os/exec and [syscall.ForkExec]: the thread's real uid is still the server's, and a program started in a scope can
//     become the server again; shells do so unasked. Use [Scope.Command], and [Scope.CommandIn] for another directory.
//   - syscall.Setuid, Setgroups and their kin, also in C: they change every thread of the process. Never call them while there
//     are scopes. C code that starts threads in a scope leaves them with the client's ids for good.
//   - Calls that ask for real ids: kill(2) may signal what the server's real uid may; ptrace(2) and prlimit(2) go by it too, and so
//     does access(2): use faccessat(2) with AT_EACCESS, or just try. Credentials that the kernel adds to messages on Unix sockets
//     unasked (SCM_CREDENTIALS, as journald reads them) are the real ones; those of connect(2) (SO_PEERCRED) are the client's.
//   - /proc/self, and with it /dev/fd and /dev/stdin: they are the server's process, whose threads the kernel lets in whoever they
//     are. A client that may name any path reaches the server's open files that way, and other clients'. Open what clients name with
//     [os.OpenInRoot] or an [os.Root].
//   - The umask, the working directory, resource limits, namespaces, the LSM's label, keyrings, the login uid and accounting by
//     real uid. A relative path begins where the server is; a file is made with the server's umask.
//   - The permitted capabilities, as the way back: code in a scope can get out of it. A scope is no sandbox for code that is not
//     trusted.
//   - Descriptors that are open already, with the rights they have, also those that were opened in the scope before its client changed.
//   - [runtime.UnlockOSThread] without a LockOSThread of one's own: the goroutine would go on elsewhere and another one get the
//     client's thread. guise ends the process if it finds out.
//
// # Starting programs
//
// [Scope.Command] returns an [os/exec.Cmd] that is the client for good, with all its ids, a session of its own and no capabilities
// but a root client's. It starts the running executable again, which becomes the client before main and only then looks at
// anything of the client's; so a client's file system can't hang the server. Package initialisers that run before guise's own run
// in that second process too, with the server's ids: keep them free of effects. An executable that is set-user-ID or has file
// capabilities can't do this; ambient capabilities do.
//
// Without an Env the program gets the server's environment. What Env holds is in the environment of that second process too, where
// LD_PRELOAD or GODEBUG would work with the server's rights: variables that a client has a say in go there by way of [ClientEnviron].
//
// # What can block
//
// A scope that touches what is the client's can block for as long as the client likes: a file on its FUSE, a FIFO that nobody
// opens, a lease that it holds. The goroutine and its thread then wait where no deadline reaches them. Bound how many clients are
// served at once, per user if they may not starve each other (the Go runtime ends the process at 10,000 threads), and hold no
// lock in a scope.
//
//   - ListenConfig.Allow runs in Accept: it must not wait for the client.
//   - RunAs waits for the goroutines of Scope.Go: they must not wait for what its caller does next.
//   - [Dial] waits for a server whose backlog is full, [Dialer.Dial] for as long as its context lasts.
//   - A write that has to announce a change waits while the server reads nothing, as writes do; the write deadline bounds it.
//   - A write from outside the scope that a connection was opened in waits for the server to say which tracking is in force,
//     where the client stated none.
//
// Close never waits for what the other end has put on a connection.
//
// # Dynamic tracking
//
// With dynamic tracking a server acts as its client is now. The client's side announces a change of its context at once, and the kernel
// proves it: of the process, or of a scope of the client's in which it writes. Threads that are in a scope for that client follow while
// they run: their ids, groups and capabilities change between two instructions of the function, which need not do anything about it.
// [Scope.Changed] tells functions that have to, because they hold files open that the client may not open any more. Programs that were started with
// Scope.Command can't follow and are ended. A client whose announcement is not proved makes its scopes nobody's.
//
// So a function in a scope must not take it that two calls in it are made by the same user: a file that it could create a moment ago it may
// not be able to remove. With static tracking that never happens.
//
// Each of the client's writes is preceded by an announcement too if the writing thread's context is not the one that the server knows, and
// [Conn.Read] never returns bytes of two contexts at once. After a Read, RunAsClient and Client are about whoever wrote what it
// returned. If that client, the process or one scope of its, announces a change of its own after the Read, they are about the changed
// context. What the client writes for somebody else, in another scope, waits until it is read.
//
// Following in a scope takes signal 34, which the Go runtime leaves alone, and is there on amd64 and arm64. [CanFollow] says why not
// where it can't be had: scopes follow at the next entry then. docs/following.md says how it works.
//
// A server minds what reads ahead, such as bufio.Reader, json.Decoder or an HTTP server: once it has read on, the context is that
// of what it read, and not of what is being worked on. Where clients wait for their answers, or tracking is static, there is
// nothing to mind.
//
// A server that hands the socket to something that can't follow, such as another program, ends the following with [Conn.Freeze].
//
// A client that opens a connection with dynamic tracking inside a scope has it for that scope: while that lasts, writes from
// outside it fail with [ErrWrongScope] rather than go out as somebody else.
//
// What a client announces, the kernel proves at the moment when the server hears of it. A client that changes, writes and exits at once
// may be gone by then: what it wrote after the change is lost, with [ErrContextLost]. A client waits for an answer before it exits.
//
// # Chains
//
// A server may open another pipe in a scope: B, acting as A, calls C, and C's client is A. Each link has a QoS of its own, and
// what C may do is limited by what A allowed B. With both links dynamic, C follows A while B and C are in scopes, by A's own proof; with a
// static one in between a change goes no further. When B writes outside its scopes, C's client, if followed, is B.
// docs/semantics.md has the table. Token.Via tells C the way: A's process, then B's.
//
// # Messages
//
// With ListenConfig.Message a pipe is one of messages: each Write is one and each Read returns one. What a short buffer does not
// take comes with the next Read; until then the error is [ErrMoreData], with the bytes that did fit. A message may be empty, and
// is no end then. [MaxMessage] is the longest that can be received. Clients find out by themselves which kind a pipe is.
//
// # Errors
//
// Every error of a pipe is an [*OpError] that says what was tried on which pipe; ask with [errors.Is] for the rest. io.EOF comes
// bare.
//
//	ErrNoDataRead     nothing has come from the client yet           read first, or WaitClient
//	ErrLevel          the client's level does not allow it           tell the client to allow more
//	ErrPrivilege      this process may not act as that client        CAP_SETUID and CAP_SETGID; uid 0 takes root
//	ErrNotWearable    a context that is never worn                   see Tokens above
//	ErrContextLost    the client's context was not proved, or it     nothing: the connection has ended
//	                  broke the protocol
//	ErrContextChanged the client has changed, so that its program   start it again, if the client still may
//	                  is not started, or was ended
//	ErrWrongScope     a write from outside of the scope              write in the scope, or dial outside it
//	ErrMoreData       the message is longer than the buffer          read on
//	ErrScopeEnded     a Scope was used after its function            call Command while it lasts
//	ErrNoPipe         there is no such pipe                          start the server; see Names and places
//	ErrNobodyListens  its server has gone                            start the server again
//	ErrBusy           the server accepts nobody for now              wait longer
//	ErrPipeTaken      a live server has the name                     stop it, or take another
//
// A client whose server ended the connection gets the server's reason from its next Read or Write, if the server gave one.
//
// # From Win32
//
//	CreateNamedPipe, ConnectNamedPipe           Listen, Listener.AcceptPipe
//	PIPE_TYPE_MESSAGE                           ListenConfig.Message
//	the pipe's security descriptor              ListenConfig.Mode, Group and Allow
//	CreateFile, WaitNamedPipe                   Dial, Dialer.Dial
//	SECURITY_ANONYMOUS ... SECURITY_DELEGATION  QoS.Level
//	SECURITY_CONTEXT_TRACKING                   QoS.Tracking = Dynamic
//	SECURITY_EFFECTIVE_ONLY                     QoS.EffectiveOnly
//	ImpersonateNamedPipeClient, RevertToSelf    Conn.RunAsClient
//	RunAsClient of .NET                         Conn.RunAsClient
//	ImpersonateLoggedOnUser, SetThreadToken     RunAs
//	CreateProcessAsUser                         Scope.Command
//	OpenThreadToken                             Conn.Client, Scope.Token, token.Self
//	SeImpersonatePrivilege                      CAP_SETUID and CAP_SETGID
//	ERROR_CANNOT_IMPERSONATE (1368)             ErrNoDataRead
//	ERROR_BAD_IMPERSONATION_LEVEL (1346)        ErrLevel
//	ERROR_PRIVILEGE_NOT_HELD (1314)             ErrPrivilege
//	ERROR_PIPE_BUSY (231)                       ErrBusy
//	ERROR_MORE_DATA (234)                       ErrMoreData
//
// Unlike ImpersonateNamedPipeClient, RunAsClient can't be forgotten to check: where it fails, its function does not run.
//
// # Debugging
//
// "guise check" shows what this kernel and this user have, "guise whoami" who a server would take this process for. Give the
// listener a Logger: it hears of clients that were not let in, broke the protocol, or were not followed though they asked.
//
// With ListenConfig.Watch "guise watch NAME" shows a server's connections and their contexts as they change, and the way each came;
// [Watch] is the same for programs.
//
// "ss -xl" lists the listening sockets and how many clients wait for Accept (Recv-Q). The lines Uid, Gid, Groups and CapEff in
// /proc/PID/task/*/status show what each thread wears: the second number of Uid is the effective one.
//
// From the first scope on the kernel holds the process undumpable (PR_SET_DUMPABLE in prctl(2)), which keeps clients out of it: it
// leaves no core dumps, and attaching a debugger or strace takes CAP_SYS_PTRACE.
package guise
