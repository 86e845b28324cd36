package npa

import (
	"bytes"
	"fmt"
	"testing"
)

func TestReply(t *testing.T) {
	for _, level := range []byte{5, 7, 8} {
		for _, message := range []bool{false, true} {
			kind := byte(1)
			if message {
				kind = 2
			}
			want := []byte{
				0, 0, 0, 32, 'N', 'P', 'A', 'M', level, 0, 0, 0, level, 0, 0, 0,
				kind, 0, 0xff, 0x05, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
			}
			q, err := read(some(t, fmt.Sprintf("level%d-ntlm", level)))
			if err != nil {
				t.Fatal(err)
			}
			if got := q.Reply(message); !bytes.Equal(got, want) {
				t.Errorf("level %d, message %v: got %x, want %x", level, message, got, want)
			}
		}
	}
}
