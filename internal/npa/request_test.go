package npa

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// read reads b as a request.
func read(b []byte) (*Request, error) { return ReadRequest(bytes.NewReader(b)) }

// wantFormatError fails the test unless err is a FormatError about the field.
func wantFormatError(t *testing.T, err error, field string) {
	t.Helper()
	var format *FormatError
	if !errors.As(err, &format) {
		t.Fatalf("got error %v, want a FormatError about %s", err, field)
	}
	if format.Field != field {
		t.Errorf("got %q, want it about %s", err, field)
	}
}

func TestCutShort(t *testing.T) {
	for _, s := range samples(t) {
		for n := range s.b {
			if _, err := read(s.b[:n]); n == 0 && !errors.Is(err, io.EOF) || n > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s, %d of %d bytes: %v", s.name, n, len(s.b), err)
			}
			// The same bytes as a whole request. Before byte 16 not even the level is there.
			if n < 16 {
				continue
			}
			if q, err := read(relength(bytes.Clone(s.b[:n]))); !errors.As(err, new(*FormatError)) {
				t.Errorf("%s, the first %d of %d bytes are a request: %+v, %v", s.name, n, len(s.b), q, err)
			}
		}
	}
}

func TestOneByteMore(t *testing.T) {
	for _, s := range samples(t) {
		for _, more := range []byte{0, 1} {
			_, err := read(relength(append(bytes.Clone(s.b), more)))
			wantFormatError(t, err, "end")
		}
	}
}

func TestLength(t *testing.T) {
	b := some(t, "level8-ntlm")
	for _, length := range []uint32{0, 1, 11, maxLength - 3, 1 << 30, 0xffffffff, 1 << 31, 0x6e030000} {
		b := bytes.Clone(b)
		binary.BigEndian.PutUint32(b, length)
		r := bytes.NewReader(b)
		_, err := ReadRequest(r)
		wantFormatError(t, err, "length")
		if r.Len() != len(b)-4 {
			t.Errorf("length %d: %d bytes were read", length, len(b)-r.Len())
		}
	}
	for _, length := range []uint32{12, maxLength - 4} { // as far as these go it may be a request
		b := bytes.Clone(b)
		binary.BigEndian.PutUint32(b, length)
		_, err := read(b)
		var format *FormatError
		if errors.As(err, &format) && format.Field == "length" || err == nil {
			t.Errorf("length %d: %v", length, err)
		}
	}
}

func TestMagic(t *testing.T) {
	for at := 4; at < 8; at++ {
		b := some(t, "level7-ntlm")
		b[at] ^= 0x20
		_, err := read(b)
		wantFormatError(t, err, "magic")
		if !strings.HasPrefix(err.Error(), "named pipe request: at byte 4, magic: ") {
			t.Errorf("got %q", err)
		}
	}
}

func TestUnknownLevels(t *testing.T) {
	for _, name := range []string{"level5-ntlm", "level7-ntlm", "level8-ntlm"} {
		for _, level := range []uint32{0, 1, 4, 6, 9, 10, 0x07000000, 0xffffffff} {
			b := some(t, name)
			binary.LittleEndian.PutUint32(b[8:], level)
			binary.LittleEndian.PutUint32(b[12:], level)
			_, err := read(b)
			var unknown *LevelError
			if !errors.As(err, &unknown) || unknown.Level != level {
				t.Errorf("%s as level %d: %v", name, level, err)
				continue
			}
			for _, part := range []string{fmt.Sprintf("level %d;", level), "5, 7 and 8"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		}
	}
}

func TestTwoLevels(t *testing.T) {
	for _, name := range []string{"level5-ntlm", "level7-ntlm", "level8-ntlm"} {
		for _, level := range []uint32{0, 4, 5, 6, 7, 8, 9} {
			b := some(t, name)
			if uint32(b[12]) == level {
				continue
			}
			binary.LittleEndian.PutUint32(b[12:], level)
			_, err := read(b)
			wantFormatError(t, err, "info")
			if want := fmt.Sprintf("request of level %d: at byte 12, ", b[8]); !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	}
}

// TestAnotherLevelsForm takes each sample for one of another level.
func TestAnotherLevelsForm(t *testing.T) {
	for _, s := range samples(t) {
		for _, level := range []uint32{5, 7, 8} {
			if level == s.want.Level {
				continue
			}
			b := bytes.Clone(s.b)
			binary.LittleEndian.PutUint32(b[8:], level)
			binary.LittleEndian.PutUint32(b[12:], level)
			if q, err := read(b); !errors.As(err, new(*FormatError)) {
				t.Errorf("%s as level %d: %+v, %v", s.name, level, q, err)
			}
		}
	}
}

func TestReaders(t *testing.T) {
	const after = "what the client writes first"
	for _, s := range samples(t) {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"plain":          func(r io.Reader) io.Reader { return r },
			"byte by byte":   iotest.OneByteReader,
			"half":           iotest.HalfReader,
			"data and error": iotest.DataErrReader,
		} {
			rest := strings.NewReader(string(s.b) + after)
			got, err := ReadRequest(wrap(rest))
			if err != nil || !reflect.DeepEqual(*got, s.want) {
				t.Errorf("%s, %s: got %+v, %v", s.name, name, got, err)
			}
			if name == "data and error" {
				continue // it reads ahead by itself
			}
			if left, _ := io.ReadAll(rest); string(left) != after {
				t.Errorf("%s, %s: %q is left unread", s.name, name, left)
			}
		}
	}
}

func TestReaderFails(t *testing.T) {
	b, failed := some(t, "level7-ntlm"), errors.New("the cable is out")
	for _, n := range []int{0, 3, 4, 5, 400} {
		_, err := ReadRequest(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(failed)))
		if !errors.Is(err, failed) || errors.Is(err, io.EOF) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

// largest returns a request of somebody in n groups.
func largest(t *testing.T, n int) []byte {
	w := mustDecode(t, some(t, "level8-ntlm"))
	w.Groups = make([]uint64, n)
	for i := range w.Groups {
		w.Groups[i] = uint64(i) + 1
		w.SIDs = append(w.SIDs, rawSID(22, 2, uint32(i)+1), rawSID(5, 21, 1, 2, 3, uint32(i)+1))
	}
	return w.finished()
}

func TestLargest(t *testing.T) {
	got, err := read(largest(t, 65536))
	if err != nil {
		t.Fatal(err)
	}
	if s := got.Session; len(s.Groups) != 65536 || s.Groups[65535] != 65536 || len(s.SIDs) != 10+2*65536 || s.SIDs[len(s.SIDs)-1] != "S-1-5-21-1-2-3-65536" {
		t.Errorf("got %d groups and %d SIDs", len(s.Groups), len(s.SIDs))
	}
	w := mustDecode(t, some(t, "level8-ntlm"))
	w.Groups = make([]uint64, 65537)
	_, err = read(w.finished())
	wantFormatError(t, err, "groups")
	w = mustDecode(t, some(t, "level8-ntlm"))
	for range mostSIDs {
		w.SIDs = append(w.SIDs, rawSID(5, 7))
	}
	_, err = read(w.finished())
	wantFormatError(t, err, "num_sids")
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestPromises: it is what has come that takes room, not what is announced.
func TestPromises(t *testing.T) {
	b := some(t, "level8-ntlm")
	binary.BigEndian.PutUint32(b, maxLength-4)
	if n := allocated(func() {
		if _, err := read(b); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	}); n > 100<<10 {
		t.Errorf("%d bytes were allocated for %d that came", n, len(b))
	}
}

func TestPromisesKeptForLong(t *testing.T) {
	b := largest(t, 1000)
	binary.BigEndian.PutUint32(b, maxLength-4)
	if n := allocated(func() {
		if _, err := read(b); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	}); n > uint64(5*len(b)) {
		t.Errorf("%d bytes were allocated for %d that came", n, len(b))
	}
}

// TestCountsThatAgree has arrays whose two counts say the same, but more than there is.
func TestCountsThatAgree(t *testing.T) {
	for name, again := range map[string]int{"groups": 5, "num_sids": 1} { // how many fields further the second count is
		for _, s := range samples(t) {
			_, fields := mustDecode(t, s.b).encode()
			i := slices.IndexFunc(fields, func(f field) bool { return f.name == name && f.kind == count })
			j := i + slices.IndexFunc(fields[i+1:], func(f field) bool { return f.kind == count }) + 1
			if j-i > again {
				t.Fatalf("the second count is %d fields after %s", j-i, name)
			}
			for _, n := range []uint32{mostGroups, mostSIDs, math.MaxUint32} {
				b := bytes.Clone(s.b)
				binary.LittleEndian.PutUint32(b[fields[i].at:], n)
				binary.LittleEndian.PutUint32(b[fields[j].at:], n)
				if n := allocated(func() {
					_, err := read(b)
					wantFormatError(t, err, name)
				}); n > 64<<10 {
					t.Errorf("%s, %s: %d bytes were allocated", s.name, name, n)
				}
			}
		}
	}
}

func TestReaderAfterAnError(t *testing.T) {
	r := &reader{b: bytes.Repeat([]byte{1}, 100)}
	r.fail(7, "first", "it is wrong")
	first := r.err
	if n := uint64(r.u8("f")) + uint64(r.u16("f")) + uint64(r.u32("f")) + r.u64("f"); n != 0 || r.take(1, "f") != nil || r.text("f") != "" || r.at != 0 {
		t.Errorf("something was read: %d, up to %d", n, r.at)
	}
	if r.count(5, 1, 10, 0, "f") != 0 {
		t.Error("there is something to count")
	}
	if r.fail(8, "second", "this too"); r.err != first {
		t.Errorf("got %v", r.err)
	}
}
