package npa

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
)

// magic is what both messages have after their length.
const magic = "NPAM"

// The levels that this package knows.
const (
	level5 = 5 // Samba 4.16.4 to 4.17.8 and 4.18.0 to 4.18.2
	level7 = 7 // 4.17.9 to 4.17.12, 4.18.3 to 4.18.11 and 4.19
	level8 = 8 // 4.20 and later
)

// maxLength is the most that a request may be long. The largest session there can be is that of a user in 65536 groups,
// more than which the kernel allows nobody: 8 bytes for each as an id, 16 as S-1-22-2-id and 28 as a domain's SID, 3.25 MiB.
const maxLength = 4 << 20

// firstRead is how much room there is for a request before more than that has come. Few are longer than 2 KiB.
const firstRead = 16 << 10

// namedPipe is the transport that a pipe's request has (NCACN_NP).
const namedPipe = 1

// Request is what smbd says when a client has opened the pipe.
type Request struct {
	Level uint32 // 5, 7 or 8
	// Client is where the SMB client is, as smbd sees it.
	Client netip.AddrPort
	// ClientName is what smbd sends as the client's name: it has none, and sends the name of its own host.
	ClientName string
	ServerName string
	Server     netip.AddrPort // where the client found smbd
	Session    Session
}

// LevelError says that a request has a level that this package does not know: it comes from another version of Samba.
type LevelError struct{ Level uint32 }

func (e *LevelError) Error() string {
	return fmt.Sprintf("named pipe request of unknown level %d; known are %d, %d and %d (Samba 4.16.4 and later)",
		e.Level, level5, level7, level8)
}

// ReadRequest reads one request from r, and not a byte more. If r ends before a request begins, the error wraps [io.EOF],
// if within one, [io.ErrUnexpectedEOF]; what is wrong with one that is whole is a [*LevelError] or a [*FormatError].
//
// A request has the client's session key in it. ReadRequest keeps no copy: it overwrites what it read with zeros. So r
// should have no buffer of its own.
func ReadRequest(r io.Reader) (*Request, error) {
	b, err := readWhole(r)
	defer clear(b)
	if err != nil {
		return nil, err
	}
	return parse(b)
}

// readWhole reads what makes one request, its length at the beginning included. The caller clears it.
func readWhole(r io.Reader) ([]byte, error) {
	var head [4]byte
	if n, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("named pipe request: %d of the %d bytes of its length came: %w", n, len(head), err)
	}
	const least = 12 // the magic and the level, which is there twice
	after := binary.BigEndian.Uint32(head[:])
	if after < least || after > maxLength-4 {
		return nil, &FormatError{Field: "length", Problem: fmt.Sprintf("%d, where %d to %d is expected", after, least, maxLength-4)}
	}
	whole := len(head) + int(after)
	b := make([]byte, min(whole, firstRead))
	copy(b, head[:])
	for have := len(head); ; {
		n, err := io.ReadFull(r, b[have:])
		have += n
		if err != nil {
			clear(b)
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("named pipe request: %d of its %d bytes came: %w", have, whole, err)
		}
		if have == whole {
			return b, nil
		}
		// Room grows with what has come, not with what is promised.
		more := make([]byte, min(whole, 2*len(b)))
		copy(more, b)
		clear(b)
		b = more
	}
}

// parse returns the request that b is, from its length on.
func parse(b []byte) (*Request, error) {
	r := &reader{b: b, at: 4}
	if seen := r.take(len(magic), "magic"); string(seen) != magic {
		r.fail(4, "magic", fmt.Sprintf("%q, where %q is expected", seen, magic))
	}
	q := new(Request)
	level := r.u32("level")
	if r.err == nil && !slices.Contains([]uint32{level5, level7, level8}, level) {
		return nil, &LevelError{level}
	}
	q.Level, r.level = level, level
	if again := r.u32("info"); again != level {
		r.fail(r.at-4, "info", fmt.Sprintf("level %d, where that of the request is expected again", again))
	}
	r.info(q)
	if left := len(b) - r.at; left != 0 {
		r.fail(r.at, "end", fmt.Sprintf("%d bytes are left over", left))
	}
	if r.err != nil {
		return nil, r.err
	}
	return q, nil
}

// info reads named_pipe_auth_req_info5, 7 or 8.
func (r *reader) info(q *Request) {
	if transport := r.u8("transport"); transport != namedPipe {
		r.fail(r.at-1, "transport", fmt.Sprintf("%d, where %d, a named pipe, is expected", transport, namedPipe))
	}
	r.present("remote_client_name")
	r.present("remote_client_addr")
	clientPort := r.u16("remote_client_port")
	r.present("local_server_name")
	r.present("local_server_addr")
	serverPort := r.u16("local_server_port")
	r.present("session_info")
	if r.level == level5 {
		r.boolean("need_idle_server") // only of interest to Samba's own daemons
	}
	q.ClientName = r.text("remote_client_name")
	q.Client = netip.AddrPortFrom(r.address("remote_client_addr"), clientPort)
	q.ServerName = r.text("local_server_name")
	q.Server = netip.AddrPortFrom(r.address("local_server_addr"), serverPort)
	r.transport(&q.Session)
}

// address reads an IP address. Samba writes it without a zone.
func (r *reader) address(field string) netip.Addr {
	r.align(4, field)
	at := r.at
	a, err := netip.ParseAddr(r.text(field))
	if err != nil || a.Zone() != "" {
		r.fail(at, field, "it is no IP address")
	}
	return a
}
