package announce

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/guise-project/guise/token"
)

type encoder interface{ encode() []byte }

// messages has every kind of message with every field at its ends, as they go over the wire.
var messages = []struct {
	name    string
	message encoder
	wire    string
}{
	{"hello that states nothing", Hello{},
		"GU\x01\x01\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00"},
	{"hello that states all", Hello{token.Delegation, Dynamic, true, token.Capabilities{Permitted: 0x0102030405060708, Effective: 0xf1f2f3f4f5f6f7f8}, 0x3132333435363738},
		"GU\x01\x01\x04\x02\x01\x00" + "\x08\x07\x06\x05\x04\x03\x02\x01" + "\xf8\xf7\xf6\xf5\xf4\xf3\xf2\xf1" + "\x38\x37\x36\x35\x34\x33\x32\x31"},
	{"context", Context{token.Identification, true, 0x1112131415161718, 0x2122232425262728, token.Capabilities{Permitted: 1, Effective: math.MaxUint64}, 7},
		"GU\x01\x02\x02\x01\x00\x00" + "\x18\x17\x16\x15\x14\x13\x12\x11" + "\x28\x27\x26\x25\x24\x23\x22\x21" +
			"\x01\x00\x00\x00\x00\x00\x00\x00" + "\xff\xff\xff\xff\xff\xff\xff\xff" + "\x07\x00\x00\x00\x00\x00\x00\x00"},
	{"in force", InForce{token.Impersonation, Static, false}, "GU\x01\x03\x03\x01\x00\x00"},
	{"in force, effective only", InForce{token.Anonymous, Dynamic, true}, "GU\x01\x03\x01\x02\x01\x00"},
	{"refused", RefusedProof, "GU\x01\x04\x05\x00\x00\x00"},
	{"refused for a reason of later days", Refusal(255), "GU\x01\x04\xff\x00\x00\x00"},
}

func TestMessagesGoOverTheWireAsDocumented(t *testing.T) {
	for _, test := range messages {
		t.Run(test.name, func(t *testing.T) {
			if got := test.message.encode(); string(got) != test.wire {
				t.Errorf("encoded as %q, want %q", got, test.wire)
			}
			got, err := decode([]byte(test.wire))
			if err != nil || got != test.message {
				t.Errorf("decoded as %+v, %v, want %+v", got, err, test.message)
			}
		})
	}
}

func TestDecodeRefusesWhatIsNotExactlyAMessage(t *testing.T) {
	hello := string(Hello{}.encode())
	context := string(Context{}.encode())
	inForce := string(InForce{}.encode())
	refused := string(RefusedAccess.encode())
	with := func(s string, at int, b byte) string { return s[:at] + string([]byte{b}) + s[at+1:] }
	tests := []struct{ name, wire, says string }{
		{"nothing", "", "0 bytes"},
		{"half a header", "GU\x01", "3 bytes"},
		{"text", "setuid program: usage: ...", "not one of guise's"},
		{"first magic byte", with(hello, 0, 'g'), "not one of guise's"},
		{"second magic byte", with(hello, 1, 'u'), "not one of guise's"},
		{"version 0", with(hello, 2, 0), "version 0"},
		{"version 2", with(hello, 2, 2), "version 2"},
		{"kind 0", with(hello, 3, 0), "unknown kind 0"},
		{"kind 5", with(hello, 3, 5), "unknown kind 5"},
		{"kind 255", with(hello, 3, 255), "unknown kind 255"},
		{"only a header", hello[:headerLen], "bytes long"},
		{"short hello", hello[:len(hello)-1], "bytes long"},
		{"long hello", hello + "\x00", "bytes long"},
		{"short context", context[:len(context)-1], "bytes long"},
		{"long context", context + "\x00", "bytes long"},
		{"short in force", inForce[:len(inForce)-1], "bytes long"},
		{"long in force", inForce + "\x00", "bytes long"},
		{"short refusal", refused[:len(refused)-1], "bytes long"},
		{"long refusal", refused + "\x00", "bytes long"},
		{"huge", hello + strings.Repeat("x", 1<<16), "bytes long"},
		{"hello's level", with(hello, 4, byte(token.Delegation)+1), "level 5"},
		{"hello's tracking", with(hello, 5, byte(Dynamic)+1), "tracking 3"},
		{"hello's flags", with(hello, 6, 2), "flags 0x2"},
		{"hello's flags, a known one too", with(hello, 6, 0x81), "flags 0x81"},
		{"hello's reserved byte", with(hello, 7, 1), "reserved"},
		{"context's level", with(context, 4, 255), "level 255"},
		{"context's flags", with(context, 5, 4), "flags 0x4"},
		{"context's first reserved byte", with(context, 6, 1), "reserved"},
		{"context's second reserved byte", with(context, 7, 1), "reserved"},
		{"in force's level", with(inForce, 4, 5), "level 5"},
		{"in force's tracking", with(inForce, 5, 3), "tracking 3"},
		{"in force's flags", with(inForce, 6, 2), "flags 0x2"},
		{"in force's reserved byte", with(inForce, 7, 1), "reserved"},
		{"refusal's first reserved byte", with(refused, 5, 1), "reserved"},
		{"refusal's second reserved byte", with(refused, 6, 1), "reserved"},
		{"refusal's third reserved byte", with(refused, 7, 1), "reserved"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, err := decode([]byte(test.wire))
			if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("decode = %+v, %v; want an error that wraps ErrProtocol and says %q", m, err, test.says)
			}
		})
	}
}

func TestVersionErrorSaysWhichVersion(t *testing.T) {
	_, err := decode([]byte("GU\x07\x01"))
	var version *VersionError
	if !errors.As(err, &version) || version.Version != 7 {
		t.Fatalf("decode: %v, want a VersionError of version 7", err)
	}
	if got := RefusalFor(err); got != RefusedVersion {
		t.Errorf("the client is told %v, want %v", got, RefusedVersion)
	}
}

func TestRefusalNamesItsReason(t *testing.T) {
	for r := RefusedAccess; int(r) < len(refusals); r++ {
		if r.Error() == "" || strings.Contains(r.Error(), "for reason") {
			t.Errorf("refusal %d says %q", r, r.Error())
		}
	}
	for _, r := range []Refusal{0, Refusal(len(refusals)), 255} {
		if !strings.Contains(r.Error(), "for reason") {
			t.Errorf("unknown refusal %d says %q", r, r.Error())
		}
	}
}

func TestParseTrackingUnderstandsWhatStringPrints(t *testing.T) {
	for want := TrackingUnstated; want <= Dynamic; want++ {
		if got, err := ParseTracking(want.String()); got != want || err != nil {
			t.Errorf("ParseTracking(%q) = %v, %v", want.String(), got, err)
		}
	}
	for _, name := range []string{"", "Static", "tracking 3"} {
		if got, err := ParseTracking(name); err == nil {
			t.Errorf("ParseTracking(%q) = %v, want an error", name, got)
		}
	}
	if got := Tracking(9).String(); got != "tracking 9" {
		t.Errorf("Tracking(9) prints %q", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, test := range messages {
		f.Add([]byte(test.wire))
		f.Add([]byte(test.wire + "\x00"))
		f.Add([]byte(test.wire[:len(test.wire)-1]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatalf("decode(%q): %v does not wrap ErrProtocol", b, err)
			}
			return
		}
		if again := m.(encoder).encode(); !bytes.Equal(again, b) {
			t.Fatalf("%q decodes as %+v, which encodes as %q", b, m, again)
		}
	})
}
