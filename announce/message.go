package announce

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/guise-project/guise/token"
)

// ErrProtocol is what errors about messages that docs/protocol.md does not allow wrap.
var ErrProtocol = errors.New("the peer broke the protocol")

// Version is the version of the protocol that this package speaks.
const Version = 1

// PrefaceByte is the byte that carries the control channel over the pipe.
const PrefaceByte = 'G'

// kind is what a message on the control channel is.
type kind uint8

const (
	kindHello   kind = 1 // client: its quality of service
	kindContext kind = 2 // client: a changed context, with a token socket
	kindInForce kind = 3 // server: the quality of service in force
	kindRefused kind = 4 // server: why it ends the connection
	kindWay     kind = 5 // client: the processes that the context of its next message came through
	kindLost    kind = 6 // client: the context of a source is lost
)

// Every message begins with two magic bytes, the version and the kind. Numbers are little-endian.
const (
	magic0, magic1 = 'G', 'U'
	headerLen      = 4
	helloLen       = headerLen + 4 + 8 + 8 + 8
	contextLen     = headerLen + 4 + 8 + 8 + 8 + 8 + 8
	inForceLen     = headerLen + 4
	refusedLen     = headerLen + 4
	wayLen         = headerLen + 4 // and the hops and the origin
	lostLen        = headerLen + 4 + 8 + 8
	longest        = longestWay
)

// Flags of a hello and of a context.
const (
	flagEffectiveOnly = 1
	flagNow           = 2 // context only
	flagNetwork       = 4
)

// Tracking is how the server follows its client's context.
type Tracking uint8

// The kinds of tracking.
const (
	TrackingUnstated Tracking = iota
	Static                    // the context is that of the open, for good
	Dynamic                   // the server follows the client's context
)

var trackingNames = [...]string{"unstated", "static", "dynamic"}

// String returns the tracking's name in lower case.
func (t Tracking) String() string {
	if int(t) < len(trackingNames) {
		return trackingNames[t]
	}
	return fmt.Sprintf("tracking %d", uint8(t))
}

// MarshalText returns the tracking's name.
func (t Tracking) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (t *Tracking) UnmarshalText(text []byte) (err error) {
	*t, err = ParseTracking(string(text))
	return err
}

// ParseTracking returns the tracking that is called name, as [Tracking.String] prints it.
func ParseTracking(name string) (Tracking, error) {
	for t, n := range trackingNames {
		if n == name {
			return Tracking(t), nil
		}
	}
	return 0, fmt.Errorf("%q is no tracking; they are static and dynamic", name)
}

// Hello is the first message of a client: what it states, zero where it states nothing.
type Hello struct {
	Level         token.Level
	Tracking      Tracking
	EffectiveOnly bool
	// Capabilities of the opening thread, all where it does not want to be cut down.
	Capabilities token.Capabilities
	Source       uint64 // of the opening thread's context; see Context
	Network      bool   // the context came over the network
}

// Context is a client's message that its context is another from a place in what it writes.
type Context struct {
	Level         token.Level
	EffectiveOnly bool
	Sequence      uint64 // rises with each
	// Now says that the context has changed between writes. It begins at no place, and At is 0.
	Now bool
	// At is the place that the context begins at: the number of bytes (in message mode: of messages) that the client
	// had written before.
	At           uint64
	Capabilities token.Capabilities
	// Source is what the context is of: 0 for the client's process, another number for each scope in which it acts for
	// somebody. A server's scope follows one source.
	Source uint64
	// Network says that the context came over the network.
	Network bool
}

// Lost is a client's message that the context of one of its sources is lost: what it acted for, or followed, broke the protocol.
type Lost struct {
	Sequence uint64 // as of a Context
	Source   uint64
}

// InForce is a server's answer to a client that stated no tracking, or one that can't be had.
type InForce struct {
	Level         token.Level
	Tracking      Tracking
	EffectiveOnly bool
}

// Refusal is why a server ended a connection.
type Refusal uint8

// The reasons for a refusal.
const (
	RefusedAccess   Refusal = iota + 1 // the server does not let this client in
	RefusedProtocol                    // the client broke the protocol
	RefusedVersion                     // the server does not speak the client's version
	RefusedBusy                        // the server is out of descriptors, or the client's user has too many
	RefusedProof                       // the client announced a context that the kernel does not prove
	RefusedLevel                       // the client's level is below what the server needs
)

var refusals = [...]string{
	RefusedAccess:   "the server does not let this client in",
	RefusedProtocol: "the server says that this client broke the protocol",
	RefusedVersion:  "the server does not speak this version of the protocol",
	RefusedBusy:     "the server is out of file descriptors, or this user has too many connections to it; try again later",
	RefusedProof:    "the server could not have the announced context proved",
	RefusedLevel:    "the server needs a higher impersonation level than this client states",
}

func (r Refusal) Error() string {
	if int(r) < len(refusals) && refusals[r] != "" {
		return refusals[r]
	}
	return fmt.Sprintf("the server refused, for reason %d", uint8(r))
}

func header(k kind, length int) []byte {
	b := make([]byte, headerLen, length)
	b[0], b[1], b[2], b[3] = magic0, magic1, Version, byte(k)
	return b
}

func flags(effectiveOnly, now, network bool) (b byte) {
	if effectiveOnly {
		b |= flagEffectiveOnly
	}
	if now {
		b |= flagNow
	}
	if network {
		b |= flagNetwork
	}
	return b
}

func (h Hello) encode() []byte {
	b := append(header(kindHello, helloLen), byte(h.Level), byte(h.Tracking), flags(h.EffectiveOnly, false, h.Network), 0)
	b = appendCapabilities(b, h.Capabilities)
	return binary.LittleEndian.AppendUint64(b, h.Source)
}

func (c Context) encode() []byte {
	b := append(header(kindContext, contextLen), byte(c.Level), flags(c.EffectiveOnly, c.Now, c.Network), 0, 0)
	b = binary.LittleEndian.AppendUint64(b, c.Sequence)
	b = binary.LittleEndian.AppendUint64(b, c.At)
	b = appendCapabilities(b, c.Capabilities)
	return binary.LittleEndian.AppendUint64(b, c.Source)
}

func (l Lost) encode() []byte {
	b := append(header(kindLost, lostLen), 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, l.Sequence)
	return binary.LittleEndian.AppendUint64(b, l.Source)
}

func (f InForce) encode() []byte {
	return append(header(kindInForce, inForceLen), byte(f.Level), byte(f.Tracking), flags(f.EffectiveOnly, false, false), 0)
}

func (r Refusal) encode() []byte {
	return append(header(kindRefused, refusedLen), byte(r), 0, 0, 0)
}

func appendCapabilities(b []byte, c token.Capabilities) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Permitted))
	return binary.LittleEndian.AppendUint64(b, uint64(c.Effective))
}

func readCapabilities(b []byte) token.Capabilities {
	return token.Capabilities{
		Permitted: token.CapSet(binary.LittleEndian.Uint64(b)),
		Effective: token.CapSet(binary.LittleEndian.Uint64(b[8:])),
	}
}

// VersionError says that the peer speaks another version of the protocol. It wraps [ErrProtocol].
type VersionError struct{ Version uint8 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("%v: it speaks version %d, this side speaks %d", ErrProtocol, e.Version, Version)
}

func (e *VersionError) Unwrap() error { return ErrProtocol }

// decode returns the message in b: a Hello, Context, *Way, Lost, InForce or Refusal. Whatever is not exactly one of them is an error.
func decode(b []byte) (any, error) {
	if len(b) < headerLen || b[0] != magic0 || b[1] != magic1 {
		return nil, fmt.Errorf("%w: a control message of %d bytes is not one of guise's", ErrProtocol, len(b))
	}
	if b[2] != Version {
		return nil, &VersionError{b[2]}
	}
	k, body := kind(b[3]), b[headerLen:]
	if k == kindWay {
		return decodeWay(body)
	}
	lengths := map[kind]int{kindHello: helloLen, kindContext: contextLen, kindInForce: inForceLen, kindRefused: refusedLen, kindLost: lostLen}
	want, known := lengths[k]
	if !known {
		return nil, fmt.Errorf("%w: control message of unknown kind %d", ErrProtocol, k)
	}
	if len(b) != want {
		return nil, fmt.Errorf("%w: control message of kind %d is %d bytes long instead of %d", ErrProtocol, k, len(b), want)
	}
	switch k {
	case kindHello:
		h := Hello{Level: token.Level(body[0]), Tracking: Tracking(body[1]), Capabilities: readCapabilities(body[4:]), Source: binary.LittleEndian.Uint64(body[20:]), Network: body[2]&flagNetwork != 0}
		var err error
		h.EffectiveOnly, err = checkStatement(h.Level, h.Tracking, body[2]&^flagNetwork, body[3])
		return h, err
	case kindContext:
		c := Context{
			Level:        token.Level(body[0]),
			Sequence:     binary.LittleEndian.Uint64(body[4:]),
			At:           binary.LittleEndian.Uint64(body[12:]),
			Capabilities: readCapabilities(body[20:]),
			Source:       binary.LittleEndian.Uint64(body[36:]),
			Now:          body[1]&flagNow != 0,
			Network:      body[1]&flagNetwork != 0,
		}
		if c.Now && c.At != 0 {
			return nil, fmt.Errorf("%w: a context that changed between writes is to begin at %d", ErrProtocol, c.At)
		}
		var err error
		c.EffectiveOnly, err = checkStatement(c.Level, TrackingUnstated, body[1]&^(flagNow|flagNetwork), body[2]|body[3])
		return c, err
	case kindLost:
		if binary.LittleEndian.Uint32(body) != 0 {
			return nil, fmt.Errorf("%w: reserved bytes are set", ErrProtocol)
		}
		return Lost{Sequence: binary.LittleEndian.Uint64(body[4:]), Source: binary.LittleEndian.Uint64(body[12:])}, nil
	case kindInForce:
		f := InForce{Level: token.Level(body[0]), Tracking: Tracking(body[1])}
		var err error
		f.EffectiveOnly, err = checkStatement(f.Level, f.Tracking, body[2], body[3])
		return f, err
	default: // kindRefused
		if body[1]|body[2]|body[3] != 0 {
			return nil, fmt.Errorf("%w: a refusal has reserved bytes set", ErrProtocol)
		}
		return Refusal(body[0]), nil
	}
}

func checkStatement(l token.Level, t Tracking, flagBits, reserved byte) (effectiveOnly bool, err error) {
	switch {
	case l > token.Delegation:
		return false, fmt.Errorf("%w: unknown impersonation level %d", ErrProtocol, l)
	case t > Dynamic:
		return false, fmt.Errorf("%w: unknown tracking %d", ErrProtocol, t)
	case flagBits&^flagEffectiveOnly != 0:
		return false, fmt.Errorf("%w: unknown flags %#x", ErrProtocol, flagBits)
	case reserved != 0:
		return false, fmt.Errorf("%w: reserved bytes are set", ErrProtocol)
	}
	return flagBits&flagEffectiveOnly != 0, nil
}
