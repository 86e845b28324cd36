// Package smb opens pipes on other machines: \\HOST\pipe\NAME. The connection is a [guise.Conn], and its data goes over SMB 3.1.1 to
// the other machine's Samba, which hands it to the guise server there.
//
//	c, err := smb.Dial(ctx, `\\files.example.org\pipe\spool`, nil)
//
// The client is whoever dials. In a scope of guise's that is the scope's client, by a Kerberos ticket of its own credential cache; outside
// of scopes it is the process. One is never taken for the other. A [Dialer] can be given a password instead.
//
// # Quality of service
//
// Between machines tracking is static. Who asks for dynamic tracking gets static tracking, and [guise.Conn.QoS] says so. The level
// is Impersonation; SMB carries neither another level nor EffectiveOnly to the server, which would take the client for one who allows
// more. So opening a pipe with less than Impersonation, with Delegation or with EffectiveOnly fails with [guise.ErrLevel], and so does
// opening one in a scope whose client allows no more than that.
//
// In the scope of a client that came over the network it fails with [guise.ErrNoDelegation], before anything is opened or sent: such a
// client has no credentials here, and what else lies on this machine under its name is not what it came with.
//
// # Credentials
//
// A scope's client has its tickets where default_ccache_name of /etc/krb5.conf says, or in /tmp/krb5cc_UID. The file is opened and read with
// the client's rights; it must be a regular file that belongs to the client and that others can't write. A client that makes that last, as
// one can with a file system of its own, makes Dial last no longer than its context. Eight at most wait for one user. The process has its
// tickets where KRB5CCNAME says, or else in the same place for its own real uid, and KRB5_CONFIG counts; in a scope, and in a program with
// more rights than whoever started it, the environment does not. Caches of the types FILE and DIR can be read. Neither the expiry of
// tickets nor the account that they are for concerns a connection that is open.
//
// Everything else is done as the process, in a scope too: reading krb5.conf, looking up names, asking the KDC and connecting.
//
// The server has to prove that it has the key of its principal, which is cifs/HOST in lower case, as HOST is written, in the realm that
// krb5.conf has it in or that the client's KDC refers to; no name is looked up for this, and an address has no principal. Tickets that
// are got from the KDC are not kept. RC4 is used only if krb5.conf names it. In a scope the proof is worth what the client's cache is: a
// client that puts a ticket of its own making there, together with somebody on the network, can pass a machine off as the server to itself.
//
// A [Password] is for NTLMv2. A server that is not the one meant can't read it, but can try to guess it from what it gets. In a scope it
// has to be for the account of the scope's client: what the domain is does not matter, the account's uid on this machine does.
//
// # On the network
//
// SMB 3.1.1 is spoken and nothing older: its negotiation can't be tampered with. Everything after the logon is signed and verified; with
// RequireEncryption, or if the server wants it, it is encrypted. Servers that let the account in as a guest are refused.
//
// # Connections
//
// A connection is like one of this machine's, but for these:
//
//   - The kind of pipe has to be known: Dialer.Message. Messages can have 1 to 65535 bytes. Windows would merge messages, as nothing
//     tells it otherwise; guise servers behind Samba don't.
//   - SMB's pipes can't be half closed: CloseWrite makes later writes fail and tells the server nothing.
//   - Write returns when this process has the data. Close returns at once; what was written before still goes out, for 5 seconds at most.
//     Then the pipe is closed, or after 2 seconds more the connection.
//   - A broken connection is an error of Read and Write that wraps [ErrCut], or [ErrProtocol] if the server or somebody in between is to
//     blame, and never io.EOF. What was written last may not have arrived. A network that is silently dead is noticed within 30 seconds.
//   - Reading goes on before it is asked for, by 64 KiB and what a socket buffers.
//   - smbd throws away what a server writes immediately before it closes. guise's servers wait, others may not: see docs/machines.md.
//
// # Errors
//
// Every error of Dial is a [guise.OpError]. Ask with [errors.Is]:
//
//	ErrNoTicket             no ticket, or no cache that can be used   kinit
//	ErrTicketExpired        it has expired                            kinit
//	ErrClock                the clocks are too far apart              NTP
//	ErrPrincipal            not the server that the name says, or     the machine's full name, Dialer.Principal,
//	                        it does not take the ticket               the server's keytab
//	ErrNoKDC                no KDC answers                            krb5.conf, the network
//	ErrConfig               krb5.conf can't be used                   the file and line that it names
//	ErrUnreachable          no such machine, nobody answers there     the name, the network, smbd
//	ErrLogon                the account is not let in                 the password, the account
//	ErrNotClients           the password is not the scope's client's  dial outside of the scope
//	ErrAccess               the account may not open the pipe, or     the log of the pipe's server
//	                        its server turns the client away
//	ErrEncryption           encryption can't be had                   the server's smb.conf
//	ErrProtocol             the server breaks the protocol, or        is it an SMB server?
//	                        somebody in between does
//	guise.ErrNoPipe         there is no such pipe                     start its server
//	guise.ErrNobodyListens  the pipe's server has gone                start it again
//	guise.ErrBusy           the server takes no more                  try later
//	guise.ErrNoDelegation   the client came over the network          call as the process, outside of the scope
//	guise.ErrLevel          see Quality of service                    Impersonation
//	guise.ErrBadName        it is no pipe's name                      \\HOST\pipe\NAME
//
// Kerberos can't tell from what smbd says whether it has no key for the ticket or no account for who calls: both are ErrPrincipal.
package smb
