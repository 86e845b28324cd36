package npa

import "encoding/binary"

const replyLength = 36

// The kinds of pipe, as the reply says them.
const (
	bytePipe    = 1
	messagePipe = 2
)

// What Windows says of its pipes too: the end is the client's, with as many instances as it likes; and a buffer of a page.
const (
	deviceState    = 0x05ff
	allocationSize = 4096
)

// Reply returns the answer that lets the client in. After it the bytes of a byte pipe go over the connection as they are,
// and each message of a message pipe behind its length, 16 bits and little-endian, which must not be 0.
//
// There is none that keeps the client out, as smbd takes no notice of a refusal: for that the connection is closed instead.
func (r *Request) Reply(message bool) []byte {
	kind := uint16(bytePipe)
	if message {
		kind = messagePipe
	}
	le := binary.LittleEndian
	b := binary.BigEndian.AppendUint32(make([]byte, 0, replyLength), replyLength-4)
	b = append(b, magic...)
	b = le.AppendUint32(b, r.Level)
	b = le.AppendUint32(b, r.Level) // which form of the answer follows
	b = le.AppendUint16(b, kind)
	b = le.AppendUint16(b, deviceState)
	b = append(b, 0, 0, 0, 0) // padding
	b = le.AppendUint64(b, allocationSize)
	return append(b, 0, 0, 0, 0) // NT_STATUS_OK
}
