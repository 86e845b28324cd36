package guise

import "time"

// Network publishes a pipe to clients on other machines, by way of this machine's Samba server: they open it as \\HOST\pipe\NAME.
// See docs/machines.md for what Samba has to be told.
//
// smbd authenticates the client and hands the pipe on, on a socket of its own. Such a client comes out of the same Accept as those of
// this machine. Its token has the ids that Samba mapped it to, and says where it came from ([token.Token.Origin]); its level is
// Impersonation and its tracking static whatever the listener prefers. Server and client are known at once.
type Network struct {
	// Name is the pipe's name on the network, if it is to be another one than on this machine; a pipe that was given by its path has
	// none and needs one.
	Name string
	// Dir is the directory in which smbd looks for pipes, "" is that of Debian, [SambaDirectory]. It has to be root's and of
	// mode 0700, and is made if it isn't there.
	Dir string
	// Path is the path of the socket, in the place of one in Dir, for servers that can't write there: root makes a symbolic link to
	// it, with the pipe's name, in Samba's directory.
	Path string
	// Guests lets in those whom Samba lets in without authentication, as guest or anonymous. They can be identified and not
	// impersonated. The listener's Level must then be no higher than Identification.
	Guests bool
}

// SambaDirectory is where Debian's smbd looks for pipes: np in its ncalrpc dir.
const SambaDirectory = "/run/samba/ncalrpc/np"

// handshakeTime is how long smbd may take for telling who its client is.
var handshakeTime = 10 * time.Second

// How many of smbd's connections may be in the handshake, and how many clients of other machines, in all and from one, may wait for the server to
// accept them. More are turned away: smbd keeps a client waiting, with all that it does, until it has an answer.
const (
	mostShaking    = 256
	mostWaitingOne = 256
	mostArrived    = 1024
)
