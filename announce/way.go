package announce

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/guise-project/guise/token"
)

// Way is a client's message about how the context of its next message came to it.
type Way struct {
	// Hops are the processes that it came through, the origin first and without the client itself.
	Hops []token.Hop
	// Origin is where it came from over the network, nil if it is this machine's.
	Origin *token.Origin
}

const (
	// mostHops is how many hops a way may have.
	mostHops       = 32
	longestProgram = 200 // bytes
	hopLen         = 4 + 4 + 4 + 1
	longestHop     = hopLen + longestProgram
	longestWay     = wayLen + mostHops*longestHop + longestOrigin
)

// ErrTooFar says that a context came through more processes than a way may have.
var ErrTooFar = fmt.Errorf("this context came through more than %d processes; perhaps they call one another in a circle", mostHops)

// The uid and the gid that the credentials of a way message claim: of no account, and not what the sender of the message may be
// without being able to become anybody.
const claimedID = 4294967292

func (w *Way) encode() ([]byte, error) {
	if len(w.Hops) > mostHops {
		return nil, ErrTooFar
	}
	b := append(header(kindWay, wayLen), byte(len(w.Hops)), 0, 0, 0)
	if w.Origin != nil {
		b[headerLen+1] = 1
	}
	for _, hop := range w.Hops {
		b = binary.LittleEndian.AppendUint32(b, uint32(hop.PID))
		b = binary.LittleEndian.AppendUint32(b, hop.UID)
		b = binary.LittleEndian.AppendUint32(b, hop.GID)
		// The end of a path tells more than its beginning.
		program := hop.Program[max(0, len(hop.Program)-longestProgram):]
		b = append(append(b, byte(len(program))), program...)
	}
	if w.Origin == nil {
		return b, nil
	}
	return appendOrigin(b, w.Origin), nil
}

func decodeWay(body []byte) (any, error) {
	if len(body) < 4 || body[1] > 1 || body[2]|body[3] != 0 {
		return nil, fmt.Errorf("%w: a way without a count", ErrProtocol)
	}
	count, network := int(body[0]), body[1] == 1
	if count == 0 && !network || count > mostHops {
		return nil, fmt.Errorf("%w: a way of %d hops", ErrProtocol, count)
	}
	w, body := new(Way), body[4:]
	for range count {
		if len(body) < hopLen || len(body) < hopLen+int(body[12]) || body[12] > longestProgram {
			return nil, fmt.Errorf("%w: a way that is cut off", ErrProtocol)
		}
		end := hopLen + int(body[12])
		w.Hops = append(w.Hops, token.Hop{
			PID:     int(int32(binary.LittleEndian.Uint32(body))),
			UID:     binary.LittleEndian.Uint32(body[4:]),
			GID:     binary.LittleEndian.Uint32(body[8:]),
			Program: strings.ToValidUTF8(string(body[hopLen:end]), "?"),
		})
		body = body[end:]
	}
	if network {
		var err error
		if w.Origin, body, err = readOrigin(body); err != nil {
			return nil, err
		}
	}
	if len(body) != 0 {
		return nil, fmt.Errorf("%w: a way with %d bytes too many", ErrProtocol, len(body))
	}
	return w, nil
}
