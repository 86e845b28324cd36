package npa

import (
	"bytes"
	"testing"
)

// FuzzReadRequest looks that nothing panics, that what is accepted is exactly what the tests' own description of the format
// makes of it, and that room is taken only for what has come.
func FuzzReadRequest(f *testing.F) {
	for _, s := range samples(f) {
		f.Add(s.b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		try(t, b)
		if len(b) >= 4 {
			try(t, relength(bytes.Clone(b)))
		}
	})
}

func try(t *testing.T, b []byte) {
	r := bytes.NewReader(b)
	var q *Request
	var err error
	if n := allocated(func() { q, err = ReadRequest(r) }); n > uint64(64<<10+32*len(b)) {
		t.Errorf("%d bytes were allocated for %d", n, len(b))
	}
	if err != nil {
		if q != nil {
			t.Errorf("both a request and an error: %+v, %v", q, err)
		}
		return
	}
	b = b[:len(b)-r.Len()]
	w, readable := decoded(b)
	if !readable {
		t.Fatalf("accepted, though there is less than it says: %+v", q)
	}
	if again, _ := w.encode(); !bytes.Equal(again, b) {
		t.Errorf("written again it is\n%x, and was\n%x", again, b)
	}
	if q.Level != w.Level || uint64(q.Session.UID) != w.UID || uint64(q.Session.GID) != w.GID || len(q.Session.Groups) != len(w.Groups) ||
		q.Session.Account != w.Account.Text || q.Session.UnixName != w.UnixName.Text || len(q.Session.SIDs) > len(w.SIDs) || len(w.Rest) > 0 {
		t.Errorf("read as %+v, and by the tests as %+v", q, w)
	}
}
