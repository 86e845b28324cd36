// Package npa speaks the server's half of Samba's named_pipe_auth: the handshake with which smbd, for each pipe that an SMB
// client opens, tells the local daemon behind the pipe who the client is. [ReadRequest] takes smbd's request off a
// connection, [Request.Reply] is the answer; after it the pipe's own bytes follow.
//
// A request is believed for one reason only: the process at the other end is root's, which the kernel says (SO_PEERCRED)
// and this package does not look at. What it does is to refuse whatever is not exactly a request of a level it knows, byte
// by byte, as the format is private to Samba and has changed within a stable series.
//
// Where what it knows comes from: the format, librpc/idl/named_pipe_auth.idl, auth.idl and security.idl of Samba's source at
// the tags samba-4.17.0 (level 5), samba-4.17.12 and samba-4.19.0 (level 7, of which there are two) and samba-4.22.0 (level
// 8); alignment and padding, librpc/ndr; which pointers are nil, source3/auth/auth_util.c and auth/auth_sam_reply.c; Samba's
// marks, source3/smbd/smb2_pipes.c, source3/rpc_client/local_np.c and librpc/rpc/dcerpc_helper.c up to the master of August
// 2026. Levels 7 and 8 are tested with what smbd 4.17.12 and 4.22.11 sent, level 5 with what they would have sent in it.
package npa
