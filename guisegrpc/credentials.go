package guisegrpc

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/guise-project/guise"
)

var (
	// ErrNoPipe: the call did not come on a pipe, or the connection is none of package guise's.
	ErrNoPipe = errors.New("guisegrpc: not a pipe of package guise; are NewServerCredentials the server's, and the Listener served as it is?")
	// ErrDynamic: tracking is dynamic. gRPC reads ahead of what is being handled, and the context with it.
	ErrDynamic = errors.New("guisegrpc: no dynamic tracking over gRPC: the context would not be that of the call; state static tracking")

	errMessages = errors.New("guisegrpc: this is a pipe of messages, and gRPC takes one of bytes")
)

// AuthInfo is what peer.FromContext has in a handler: the connection that a call came on. See [FromContext].
type AuthInfo struct {
	credentials.CommonAuthInfo
	// Conn is gRPC's: it must not be read from, written to or closed.
	Conn *guise.Conn
}

// AuthType returns "guise".
func (AuthInfo) AuthType() string { return protocol }

// ValidateAuthority lets [google.golang.org/grpc.CallAuthority] say anything: a server is known by its pipe and not by a name.
func (AuthInfo) ValidateAuthority(string) error { return nil }

const protocol = "guise"

// NewServerCredentials returns credentials for [google.golang.org/grpc.Creds], with which a server of pipes knows its clients. It
// is then a server of pipes only: the handshake of every other connection fails with [ErrNoPipe].
//
// The handshake waits for the client's first word, as long as the server's connection timeout says, and fails with [ErrDynamic]
// where tracking is dynamic.
func NewServerCredentials() credentials.TransportCredentials { return transport{} }

// transport are the credentials of both sides.
type transport struct{}

func (transport) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*guise.Conn)
	if !ok {
		return nil, nil, fmt.Errorf("%w: it is a %T", ErrNoPipe, raw)
	}
	if err := c.WaitClient(context.Background()); err != nil { // the server has set a deadline
		return nil, nil, err
	}
	return handshake(c)
}

func (transport) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*guise.Conn)
	if !ok {
		return nil, nil, fmt.Errorf("%w: it is a %T", ErrNoPipe, raw)
	}
	return handshake(c)
}

// handshake looks at a connection whose quality of service is known. There is nothing to say: the pipe's own preface has said it.
func handshake(c *guise.Conn) (net.Conn, credentials.AuthInfo, error) {
	if err := usable(c); err != nil {
		return nil, nil, err
	}
	level := credentials.NoSecurity
	if _, here := c.RemoteAddr().(*net.UnixAddr); here {
		level = credentials.PrivacyAndIntegrity
	}
	return c, AuthInfo{credentials.CommonAuthInfo{SecurityLevel: level}, c}, nil
}

// usable returns an error for a connection that gRPC can't use. Tracking that is static stays so; one that is not known yet may be
// anything.
func usable(c *guise.Conn) error {
	switch {
	case c.QoS().Tracking != guise.Static:
		return fmt.Errorf("%s: %w", c.Name(), ErrDynamic)
	case c.Message():
		return fmt.Errorf("%s: %w", c.Name(), errMessages)
	}
	return nil
}

func (transport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: protocol}
}

func (t transport) Clone() credentials.TransportCredentials { return t }

// OverrideServerName is of the interface, and deprecated there: a pipe's server is known by its token, see guise.Dialer's CheckServer.
func (transport) OverrideServerName(string) error { return nil }
