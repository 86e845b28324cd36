package npa

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// traces are all the ways in which 4 bytes in succession of [key] might be told.
var traces = func() (all []string) {
	for i := range len(key) - 3 {
		part := key[i : i+4]
		le, be := uint64(binary.LittleEndian.Uint32(part)), uint64(binary.BigEndian.Uint32(part))
		all = append(all, string(part), strings.Trim(fmt.Sprintf("%q", part), `"`), strings.Trim(fmt.Sprint(part), "[]"),
			fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), strconv.FormatUint(le, 10), strconv.FormatUint(le, 16),
			fmt.Sprintf("%X", le), strconv.FormatUint(be, 10))
	}
	return all
}()

// betrays returns what s has of the session key in it, or "".
func betrays(s string) string {
	for _, trace := range traces {
		if strings.Contains(s, trace) {
			return trace
		}
	}
	return ""
}

// spy keeps what buffers it filled.
type spy struct {
	io.Reader
	filled [][]byte
}

func (s *spy) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	s.filled = append(s.filled, b[:n])
	return n, err
}

// readSpied reads b as a request and fails the test if anything of [key] is told, or anything at all left in a buffer.
func readSpied(t *testing.T, b []byte) (*Request, error) {
	t.Helper()
	s := &spy{Reader: bytes.NewReader(b)}
	q, err := ReadRequest(s)
	for i, buffer := range s.filled {
		if i > 0 && len(bytes.Trim(buffer, "\x00")) > 0 { // the first is the length
			t.Errorf("after reading %d bytes with error %v, buffer %d has %x", len(b), err, i, buffer)
			break
		}
	}
	said := fmt.Sprint(err)
	if q != nil {
		said += fmt.Sprintf(" %+v %#v", q, q)
	}
	if what := betrays(said); what != "" {
		t.Errorf("the session key is told, %q: %s", what, said)
	}
	return q, err
}

func TestNothingIsLeft(t *testing.T) {
	for _, s := range samples(t) {
		if !bytes.Contains(s.b, key) {
			t.Fatal("the sample has no key")
		}
		if _, err := readSpied(t, s.b); err != nil {
			t.Error(err)
		}
		for n := range s.b {
			readSpied(t, s.b[:n])
			if n > 4 {
				readSpied(t, relength(bytes.Clone(s.b[:n])))
			}
		}
		for _, level := range []byte{5, 7, 8, 9} {
			b := bytes.Clone(s.b)
			b[8], b[12] = level, level
			readSpied(t, b)
		}
	}
	b := largest(t, 30000)
	if _, err := readSpied(t, b); err != nil {
		t.Error(err)
	}
	if _, err := readSpied(t, b[:len(b)-1]); err == nil {
		t.Error("it was cut short")
	}
}

// TestMisplacedKey has the key where something else is expected, as it would be if Samba's format were not what it should be.
func TestMisplacedKey(t *testing.T) {
	refused := 0
	for _, s := range samples(t) {
		for at := 17; at < len(s.b); at++ {
			b := bytes.Clone(s.b)
			if len(b)-at < len(key) {
				b = append(b, key...)
			}
			copy(b[at:], key)
			if _, err := read(b); err != nil { // otherwise it is somewhere that may hold anything, such as a SID
				refused++
				readSpied(t, b)
			}
		}
	}
	if refused == 0 {
		t.Error("all were accepted")
	}
}

func TestEveryBitFlipped(t *testing.T) {
	for _, s := range samples(t) {
		if !slices.Contains([]string{"level5-guest", "level7-guest", "level8-ntlm"}, s.name) {
			continue
		}
		accepted := 0
		for bit := range 8 * len(s.b) {
			b := bytes.Clone(s.b)
			b[bit/8] ^= 1 << (bit % 8)
			q, err := readSpied(t, b)
			if err != nil {
				continue
			}
			accepted++
			w, readable := decoded(b)
			if !readable {
				t.Fatalf("%s, bit %d: accepted %+v", s.name, bit, q)
			}
			if again, _ := w.encode(); !bytes.Equal(again, b) {
				t.Errorf("%s, bit %d: accepted %+v", s.name, bit, q)
			}
		}
		if accepted == 0 || accepted > 6*len(s.b) {
			t.Errorf("%s: %d of %d flips make another request", s.name, accepted, 8*len(s.b))
		}
	}
}

func TestGSSAPICredentials(t *testing.T) {
	for _, s := range samples(t) {
		for n := 1; n < 70; n++ {
			w := mustDecode(t, s.b)
			w.Credentials = bytes.Repeat(key, 5)[:n]
			q, err := readSpied(t, w.finished())
			if err != nil || fmt.Sprintf("%+v", *q) != fmt.Sprintf("%+v", s.want) {
				t.Errorf("%s, %d bytes of credentials: %+v, %v", s.name, n, q, err)
			}
		}
	}
}

func TestKeyLengths(t *testing.T) {
	for _, s := range samples(t) {
		for n := range 70 {
			w := mustDecode(t, s.b)
			w.Key = bytes.Repeat(key, 5)[:n]
			q, err := readSpied(t, w.finished())
			if err != nil || fmt.Sprintf("%+v", *q) != fmt.Sprintf("%+v", s.want) {
				t.Errorf("%s, a key of %d bytes: %+v, %v", s.name, n, q, err)
			}
		}
	}
}
