package npa

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// FormatError says where a request is not what a request of its level must be. It never says what stood there beyond
// the request's header: where a request has another format than expected, that might be a piece of the session key.
type FormatError struct {
	Level   uint32 // 0 if the request ended or went wrong before it
	Offset  int    // of the field, in bytes from the start of the request
	Field   string // as Samba's definitions call it
	Problem string
}

func (e *FormatError) Error() string {
	of := ""
	if e.Level != 0 {
		of = fmt.Sprintf(" of level %d", e.Level)
	}
	return fmt.Sprintf("named pipe request%s: at byte %d, %s: %s", of, e.Offset, e.Field, e.Problem)
}

// reader takes NDR's primitives off a request: 32-bit NDR, little-endian, aligned from the request's first byte. After the
// first error all that it returns is zero, and err is that error.
type reader struct {
	b     []byte
	at    int
	level uint32
	err   error
}

// fail makes problem, of the field at offset at, the error, if there is none yet.
func (r *reader) fail(at int, field, problem string) {
	if r.err == nil {
		r.err = &FormatError{r.level, at, field, problem}
	}
}

// take returns the next n bytes, which belong to the request; nil if there are less.
func (r *reader) take(n int, field string) []byte {
	if r.err != nil {
		return nil
	}
	if left := len(r.b) - r.at; n > left {
		r.fail(r.at, field, fmt.Sprintf("%d bytes are expected, %d are left", n, left))
		return nil
	}
	b := r.b[r.at : r.at+n]
	r.at += n
	return b
}

// align skips the padding before a field that begins at a multiple of n. Samba fills it with zeros.
func (r *reader) align(n int, field string) {
	at := r.at
	for _, pad := range r.take(-r.at&(n-1), field) {
		if pad != 0 {
			r.fail(at, field, "the padding before it is not zero")
		}
	}
}

func (r *reader) u8(field string) uint8 {
	if b := r.take(1, field); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16(field string) uint16 {
	r.align(2, field)
	if b := r.take(2, field); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32(field string) uint32 {
	r.align(4, field)
	if b := r.take(4, field); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// u64 reads a hyper, which is aligned to 8 bytes.
func (r *reader) u64(field string) uint64 {
	r.align(8, field)
	if b := r.take(8, field); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// boolean reads a boolean8.
func (r *reader) boolean(field string) bool {
	at := r.at
	b := r.u8(field)
	if b > 1 {
		r.fail(at, field, "neither 0 nor 1")
	}
	return b == 1
}

// enum reads a 16-bit enumeration that ends with last.
func (r *reader) enum(last uint16, field string) {
	if v := r.u16(field); v > last {
		r.fail(r.at-2, field, fmt.Sprintf("a number from 0 to %d is expected", last))
	}
}

// skip accounts for n bytes, aligned to alignment, which may be anything.
func (r *reader) skip(n, alignment int, field string) {
	r.align(alignment, field)
	r.take(n, field)
}

// blob skips a DATA_BLOB, a length and so many bytes. Nothing of it is kept: see [ReadRequest].
func (r *reader) blob(field string) {
	length := r.u32(field)
	r.take(r.count(length, 1, maxLength, r.at-4, field), field)
}

// pointer reads a unique pointer and reports whether it points to something: what, follows later.
func (r *reader) pointer(field string) bool { return r.u32(field) != 0 }

// present reads a pointer that Samba always has something for.
func (r *reader) present(field string) {
	if !r.pointer(field) {
		r.fail(r.at-4, field, "it is nil, which it never is")
	}
}

// absent reads a pointer that is always nil, as there is no form for what it would point to.
func (r *reader) absent(field string) {
	if r.pointer(field) {
		r.fail(r.at-4, field, "it is not nil, which it always is")
	}
}

// count checks that a number of elements at the offset at, of at least size bytes each, is at most most and fits what is left.
func (r *reader) count(n uint32, size, most, at int, field string) int {
	switch left := len(r.b) - r.at; {
	case r.err != nil:
		return 0
	case int64(n) > int64(most):
		r.fail(at, field, fmt.Sprintf("more than %d", most))
		return 0
	case int64(n)*int64(size) > int64(left):
		r.fail(at, field, fmt.Sprintf("more than the %d bytes that are left can hold", left))
		return 0
	}
	return int(n)
}

// same reads the number of a conformant array's elements, which NDR has twice.
func (r *reader) same(n uint32, field string) {
	if again := r.u32(field); again != n {
		r.fail(r.at-4, field, "the size of the array is not the number of its elements")
	}
}

// text reads what a string pointer points to: room, offset and length in bytes, and so many bytes that end with the only NUL.
func (r *reader) text(field string) string {
	room := r.u32(field)
	if offset := r.u32(field); offset != 0 {
		r.fail(r.at-4, field, "a string that begins at 0 is expected")
	}
	at := r.at
	r.same(room, field)
	n := r.count(room, 1, maxLength, at, field)
	at = r.at
	b := r.take(n, field)
	if r.err != nil {
		return ""
	}
	if n == 0 || bytes.IndexByte(b, 0) != n-1 {
		r.fail(at, field, "a string is expected that ends with its only NUL")
		return ""
	}
	b = b[:n-1]
	switch {
	case !utf8.Valid(b):
		r.fail(at, field, "it is not UTF-8")
	case bytes.ContainsFunc(b, unicode.IsControl):
		r.fail(at, field, "it has control characters")
	default:
		return string(b)
	}
	return ""
}

// optional reads what a string pointer points to, if it does.
func (r *reader) optional(is bool, field string) string {
	if !is {
		return ""
	}
	return r.text(field)
}
