package npa

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
)

// withSIDs returns a request of the level whose token has these SIDs.
func withSIDs(t *testing.T, level int, sids ...[]byte) []byte {
	w := mustDecode(t, some(t, fmt.Sprintf("level%d-ntlm", level)))
	w.SIDs = sids
	return w.finished()
}

var (
	plain     = rawSID(22, 2041152804, 0)
	everybody = rawSID(1, 0)
	somebody  = rawSID(5, 11)
	nobody    = rawSID(5, 7)
	guests    = rawSID(5, 32, 546)
)

func TestAuthenticated(t *testing.T) {
	for _, test := range []struct {
		sids                            [][]byte
		authenticated, anonymous, guest bool
	}{
		{nil, false, false, false},
		{[][]byte{everybody}, false, false, false},
		{[][]byte{everybody, somebody}, true, false, false},
		{[][]byte{nobody}, false, true, false},
		{[][]byte{guests}, false, false, true},
		{[][]byte{nobody, somebody}, false, true, false},
		{[][]byte{somebody, nobody}, false, true, false},
		{[][]byte{guests, somebody}, false, false, true},
		{[][]byte{somebody, guests}, false, false, true},
		{[][]byte{somebody, guests, nobody}, false, true, true},
		{[][]byte{rawSID(22, 11), rawSID(5, 11, 0), rawSID(5, 32, 11), rawSID(1, 11)}, false, false, false},
		{[][]byte{somebody, rawSID(5, 7, 7), rawSID(5, 546), rawSID(5, 32, 545), rawSID(5, 32, 546, 1), rawSID(1, 7)}, true, false, false},
	} {
		for _, level := range []int{5, 7, 8} {
			sids := slices.Clone(test.sids)
			if level > 5 {
				sids = append(sids, plain)
			}
			q, err := read(withSIDs(t, level, sids...))
			if err != nil {
				t.Fatal(err)
			}
			if s := q.Session; s.Authenticated != test.authenticated || s.Anonymous != test.anonymous || s.Guest != test.guest || len(s.SIDs) != len(test.sids) {
				t.Errorf("level %d, %x: %+v", level, sids, s)
			}
		}
	}
}

func TestFlags(t *testing.T) {
	for flags := range uint32(8) {
		for _, level := range []int{7, 8} {
			q, err := read(withSIDs(t, level, somebody, rawSID(22, 2041152804, flags), everybody))
			if err != nil || q.Session.Probe != (flags >= 4) || !slices.Equal(q.Session.SIDs, []string{"S-1-5-11", "S-1-1-0"}) {
				t.Errorf("level %d, flags %d: %+v, %v", level, flags, q, err)
			}
		}
	}
	for i, test := range []struct {
		level int
		sids  [][]byte
	}{
		{7, [][]byte{somebody}}, // without
		{8, [][]byte{somebody}},
		{7, [][]byte{plain, plain}},
		{8, [][]byte{plain, somebody, rawSID(22, 2041152804, 4)}},
		{5, [][]byte{plain}}, // not in this level
		{7, [][]byte{rawSID(22, 2041152804, 8)}},
		{8, [][]byte{rawSID(22, 2041152804, math.MaxUint32)}},
		{8, [][]byte{rawSID(22, 2041152804)}},
		{8, [][]byte{plain, rawSID(22, 2041152804)}},
		{8, [][]byte{rawSID(22, 2041152804, 0, 0)}},
		{8, [][]byte{rawSID(21, 2041152804, 0)}}, // somebody else's
	} {
		_, err := read(withSIDs(t, test.level, test.sids...))
		if err == nil {
			t.Errorf("%d: accepted", i)
			continue
		}
		wantFormatError(t, err, "sids")
	}
}

func TestEncryption(t *testing.T) {
	mark := func(said ...uint32) []byte { return rawSID(22, append([]uint32{1397571891}, said...)...) }
	for _, level := range []int{5, 7, 8} {
		flags := [][]byte{plain}
		if level == 5 {
			flags = nil
		}
		for _, test := range []struct {
			dialect, cipher uint32
			want            bool
		}{
			{0x300, 1, true}, {0x302, 1, true}, {0x311, 1, true}, {0x311, 2, true}, {0x311, 3, true}, {0x311, 4, true},
			{0x311, 0, false}, {0x311, 5, false}, {0x311, 0xffff, false}, // no cipher that is known
			{0x210, 1, false}, {0x2ff, 1, false}, {0x310, 1, false}, {0x312, 2, false}, {0, 1, false}, {0xffff, 1, false},
		} {
			q, err := read(withSIDs(t, level, append(flags, somebody, mark(test.dialect, 2, test.cipher), everybody)...))
			if err != nil {
				t.Fatal(err)
			}
			s := q.Session
			if s.Encrypted != test.want || uint32(s.Dialect) != test.dialect || uint32(s.Cipher) != test.cipher ||
				!slices.Equal(s.SIDs, []string{"S-1-5-11", "S-1-1-0"}) {
				t.Errorf("level %d, %+v: %+v", level, test, s)
			}
		}
		for i, marks := range [][][]byte{
			{mark(0x311, 2, 2), mark(0x311, 2, 2)},
			{mark(0x311, 2, 2), mark(0x300, 2, 1)},
			{mark(0x311, 0, 2)}, {mark(0x311, 1, 2)}, {mark(0x311, 3, 2)},
			{mark(0x10311, 2, 2)}, {mark(0x311, 2, 0x10002)},
			{mark()}, {mark(0x311)}, {mark(0x311, 2)}, {mark(0x311, 2, 2, 0)},
		} {
			_, err := read(withSIDs(t, level, append(flags, marks...)...))
			if err == nil {
				t.Errorf("level %d, %d: accepted", level, i)
				continue
			}
			wantFormatError(t, err, "sids")
		}
		q, err := read(withSIDs(t, level, append(flags, rawSID(5, 1397571891, 0x311, 2, 2), rawSID(22, 1, 1397571891, 2, 2))...))
		if err != nil || q.Session.Encrypted || len(q.Session.SIDs) != 2 {
			t.Errorf("level %d, SIDs that are no marks: %+v, %v", level, q, err)
		}
	}
}

func TestSIDs(t *testing.T) {
	many := make([]uint32, 15)
	for i := range many {
		many[i] = math.MaxUint32
	}
	for want, raw := range map[string][]byte{
		"S-1-0-0":                            rawSID(0, 0),
		"S-1-5-21-4294967295-2147483648-1-0": rawSID(5, 21, math.MaxUint32, 1<<31, 1, 0),
		"S-1-4294967295-1":                   {1, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0},
		"S-1-0x000100000000-1":               {1, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0},
		"S-1-0xFEDCBA987654-67305985":        {1, 1, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 1, 2, 3, 4},
		"S-1-16909060-1":                     {1, 1, 0, 0, 1, 2, 3, 4, 1, 0, 0, 0},
		"S-1-5" + string(bytes.Repeat([]byte("-4294967295"), 15)): rawSID(5, many...),
	} {
		q, err := read(withSIDs(t, 8, raw, plain))
		if err != nil || !slices.Equal(q.Session.SIDs, []string{want}) {
			t.Errorf("%x: %+v, %v, want %s", raw, q, err, want)
		}
	}
}

func TestNames(t *testing.T) {
	for want, is := range map[string]fmt.Stringer{
		"3.0": SMB300, "3.0.2": SMB302, "3.1.1": SMB311, "dialect 0x0210": Dialect(0x210), "dialect 0xffff": Dialect(0xffff),
		"AES-128-CCM": AES128CCM, "AES-128-GCM": AES128GCM, "AES-256-CCM": AES256CCM, "AES-256-GCM": AES256GCM,
		"cipher 5": Cipher(5), "cipher 65535": Cipher(65535),
	} {
		if is.String() != want {
			t.Errorf("got %s, want %s", is, want)
		}
	}
	if Dialect(0).String() != "unknown" || Cipher(0).String() != "unknown" {
		t.Error("what is not known is", Dialect(0), Cipher(0))
	}
}

func TestErrorsSayWhere(t *testing.T) {
	w := mustDecode(t, some(t, "level8-ntlm"))
	w.UID = 1 << 40
	_, err := read(w.finished())
	_, fields := w.encode()
	i := slices.IndexFunc(fields, func(f field) bool { return f.name == "uid" })
	want := fmt.Sprintf("named pipe request of level 8: at byte %d, uid: an id of 32 bits is expected", fields[i].at)
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	var format *FormatError
	if !errors.As(err, &format) || format.Level != 8 || format.Offset != fields[i].at {
		t.Errorf("got %#v", format)
	}
}
