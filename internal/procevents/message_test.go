package procevents

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

func TestOnlyWholeMessagesOfTheConnectorAreParsed(t *testing.T) {
	word := func(offset int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.NativeEndian.PutUint32(b[offset:], v); return b }
	}
	tests := []struct {
		name   string
		change func([]byte) []byte
		ok     bool
	}{
		{"as the kernel sends it", func(b []byte) []byte { return b }, true},
		{"nothing", func([]byte) []byte { return nil }, false},
		{"one byte less", func(b []byte) []byte { return b[:len(b)-1] }, false},
		{"one byte more", func(b []byte) []byte { return append(b, 0) }, false},
		{"a length that is too short", word(offsetLength, 75), false},
		{"a length that is too long", word(offsetLength, 77), false},
		{"data that are too short", word(offsetDataLength, 39), false},
		{"data that are too long", word(offsetDataLength, 41), false},
		{"another index", word(offsetIndex, 2), false},
		{"another value", word(offsetValue, 2), false},
		{"a request", func([]byte) []byte { return request(subscribe, eventUID, 0) }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ev, ok := parse(test.change(message(eventGID, 7, 5)))
			if ok != test.ok {
				t.Fatalf("parsed: %t, want %t", ok, test.ok)
			}
			if want := (event{what: eventGID, thread: 7}); ok && ev != want {
				t.Errorf("got %+v, want %+v", ev, want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message(eventUID, 7, 5))
	f.Add(message(eventNone, 0, 0))
	f.Add(request(subscribe, allEvents, 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := slices.Clone(b)
		_, ok := parse(b)
		if !bytes.Equal(b, before) {
			t.Error("parsing changed the message")
		}
		if ok && (binary.NativeEndian.Uint32(b) != uint32(len(b)) || len(b) < atLeast) {
			t.Errorf("parsed %d bytes that say they are %d", len(b), binary.NativeEndian.Uint32(b))
		}
		if _, again := parse(append(b, 0)); ok && again {
			t.Error("parsed a message with something behind it")
		}
	})
}
