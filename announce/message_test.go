package announce

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/guise-project/guise/token"
)

// encoded returns what goes over the wire for a message.
func encoded(message any) []byte {
	switch m := message.(type) {
	case interface{ encode() []byte }:
		return m.encode()
	case *Way:
		b, err := m.encode()
		if err != nil {
			panic(err)
		}
		return b
	}
	panic(fmt.Sprintf("%T is no message", message))
}

func encodedText(message any) string { return string(encoded(message)) }

// hops returns a way of n hops of so many bytes each.
func hops(n, program int) *Way {
	w := new(Way)
	for range n {
		w.Hops = append(w.Hops, token.Hop{PID: 0x41424344, UID: 0x45464748, GID: 0x494a4b4c, Program: strings.Repeat("p", program)})
	}
	return w
}

// wireHops is hops as it goes over the wire.
func wireHops(n, program int) string {
	hop := "\x44\x43\x42\x41" + "\x48\x47\x46\x45" + "\x4c\x4b\x4a\x49" + string([]byte{byte(program)}) + strings.Repeat("p", program)
	return "GU\x01\x05" + string([]byte{byte(n), 0, 0, 0}) + strings.Repeat(hop, n)
}

// messages has every kind of message with every field at its ends, as they go over the wire.
var messages = []struct {
	name    string
	message any
	wire    string
}{
	{"hello that states nothing", Hello{},
		"GU\x01\x01\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00"},
	{"hello that states all", Hello{token.Delegation, Dynamic, true, token.Capabilities{Permitted: 0x0102030405060708, Effective: 0xf1f2f3f4f5f6f7f8}, 0x3132333435363738, false},
		"GU\x01\x01\x04\x02\x01\x00" + "\x08\x07\x06\x05\x04\x03\x02\x01" + "\xf8\xf7\xf6\xf5\xf4\xf3\xf2\xf1" + "\x38\x37\x36\x35\x34\x33\x32\x31"},
	{"context", Context{token.Identification, true, 0x1112131415161718, false, 0x2122232425262728, token.Capabilities{Permitted: 1, Effective: math.MaxUint64}, 7, false},
		"GU\x01\x02\x02\x01\x00\x00" + "\x18\x17\x16\x15\x14\x13\x12\x11" + "\x28\x27\x26\x25\x24\x23\x22\x21" +
			"\x01\x00\x00\x00\x00\x00\x00\x00" + "\xff\xff\xff\xff\xff\xff\xff\xff" + "\x07\x00\x00\x00\x00\x00\x00\x00"},
	{"context that changed between writes", Context{token.Delegation, false, 1, true, 0, token.Capabilities{}, math.MaxUint64, false},
		"GU\x01\x02\x04\x02\x00\x00" + "\x01\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" +
			"\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\xff\xff\xff\xff\xff\xff\xff\xff"},
	{"context that changed between writes, effective only", Context{token.Anonymous, true, math.MaxUint64, true, 0, token.AllCapabilities, 0, false},
		"GU\x01\x02\x01\x03\x00\x00" + "\xff\xff\xff\xff\xff\xff\xff\xff" + "\x00\x00\x00\x00\x00\x00\x00\x00" +
			"\xff\xff\xff\xff\xff\xff\xff\xff" + "\xff\xff\xff\xff\xff\xff\xff\xff" + "\x00\x00\x00\x00\x00\x00\x00\x00"},
	{"context that goes with a write at 0", Context{}, "GU\x01\x02" + strings.Repeat("\x00", 44)},
	{"way of one hop", &Way{Hops: []token.Hop{{PID: 0x11121314, UID: 0x21222324, GID: 0x31323334, Program: "/bin/a"}}},
		"GU\x01\x05\x01\x00\x00\x00" + "\x14\x13\x12\x11" + "\x24\x23\x22\x21" + "\x34\x33\x32\x31" + "\x06/bin/a"},
	{"way of two hops, the ends of every field", &Way{Hops: []token.Hop{{}, {PID: math.MaxInt32, UID: math.MaxUint32, GID: math.MaxUint32, Program: "\u00e9"}}},
		"GU\x01\x05\x02\x00\x00\x00" + strings.Repeat("\x00", 13) + "\xff\xff\xff\x7f" + strings.Repeat("\xff", 8) + "\x02\xc3\xa9"},
	{"way with a program as long as can be", hops(1, 200), wireHops(1, 200)},
	{"way of as many hops as can be", hops(32, 0), wireHops(32, 0)},
	{"longest way", hops(32, 200), wireHops(32, 200)},
	{"way from another machine", &Way{Origin: &token.Origin{Client: netip.MustParseAddrPort("192.0.2.7:513"), Account: "alice", Domain: "TEST", SIDs: []string{"S-1-5-21-1", "S-1-1-0"}, Encrypted: true}},
		"GU\x01\x05\x00\x01\x00\x00" + "\x04\xc0\x00\x02\x07\x01\x02" + "\x01" + "\x05alice" + "\x04TEST" + "\x12\x00S-1-5-21-1 S-1-1-0"},
	{"way from nobody knows where", &Way{Origin: &token.Origin{}}, "GU\x01\x05\x00\x01\x00\x00" + strings.Repeat("\x00", 8)},
	{"way of a hop from another machine", &Way{Hops: []token.Hop{{PID: 1, UID: 2, GID: 3, Program: "p"}}, Origin: &token.Origin{Client: netip.MustParseAddrPort("[2001:db8::1]:1")}},
		"GU\x01\x05\x01\x01\x00\x00" + "\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x01p" + "\x10\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x01\x00" + strings.Repeat("\x00", 5)},
	{"longest way from another machine", &Way{Hops: hops(32, 200).Hops, Origin: &token.Origin{
		Client: netip.MustParseAddrPort("[2001:db8::1]:1"), Account: strings.Repeat("a", 255), Domain: strings.Repeat("d", 255), SIDs: []string{"S-1-" + strings.Repeat("1", 59996)}}},
		"GU\x01\x05\x20\x01\x00\x00" + wireHops(32, 200)[8:] + "\x10\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x01\x00\x00" +
			"\xff" + strings.Repeat("a", 255) + "\xff" + strings.Repeat("d", 255) + "\x60\xeaS-1-" + strings.Repeat("1", 59996)},
	{"hello from another machine", Hello{Network: true}, "GU\x01\x01\x00\x00\x04\x00" + strings.Repeat("\x00", 24)},
	{"context from another machine that changed between writes", Context{Now: true, Network: true}, "GU\x01\x02\x00\x06" + strings.Repeat("\x00", 42)},
	{"lost", Lost{Sequence: 0x1112131415161718, Source: 0x2122232425262728},
		"GU\x01\x06\x00\x00\x00\x00" + "\x18\x17\x16\x15\x14\x13\x12\x11" + "\x28\x27\x26\x25\x24\x23\x22\x21"},
	{"lost, zero", Lost{}, "GU\x01\x06" + strings.Repeat("\x00", 20)},
	{"lost, the greatest", Lost{math.MaxUint64, math.MaxUint64}, "GU\x01\x06\x00\x00\x00\x00" + strings.Repeat("\xff", 16)},
	{"in force", InForce{token.Impersonation, Static, false}, "GU\x01\x03\x03\x01\x00\x00"},
	{"in force, effective only", InForce{token.Anonymous, Dynamic, true}, "GU\x01\x03\x01\x02\x01\x00"},
	{"refused", RefusedProof, "GU\x01\x04\x05\x00\x00\x00"},
	{"refused for a reason of later days", Refusal(255), "GU\x01\x04\xff\x00\x00\x00"},
}

func TestMessagesGoOverTheWireAsDocumented(t *testing.T) {
	for _, test := range messages {
		t.Run(test.name, func(t *testing.T) {
			if got := encoded(test.message); string(got) != test.wire {
				t.Errorf("encoded as %q, want %q", got, test.wire)
			}
			got, err := decode([]byte(test.wire))
			if err != nil || !reflect.DeepEqual(got, test.message) {
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
	lost := string(Lost{Sequence: 1}.encode())
	now := string(Context{Now: true}.encode())
	remote := encodedText(&Way{Origin: &token.Origin{Client: netip.MustParseAddrPort("192.0.2.7:513"), Account: "alice", Domain: "TEST", SIDs: []string{"S-1-5-7"}}})
	nowhere := encodedText(&Way{Origin: &token.Origin{}})
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
		{"kind 7", with(hello, 3, 7), "unknown kind 7"},
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
		{"context's flags", with(context, 5, 8), "flags 0x8"},
		{"context's first reserved byte", with(context, 6, 1), "reserved"},
		{"context's second reserved byte", with(context, 7, 1), "reserved"},
		{"context's flags, the known ones too", with(context, 5, 0x0f), "flags 0x9"},
		{"context's last flag", with(context, 5, 0x80), "flags 0x80"},
		{"context between writes at 1", with(now, 16, 1), "is to begin at 1"},
		{"context between writes at a high place", with(now, 23, 0x80), "is to begin at 9223372036854775808"},
		{"context between writes, effective only, at 1", with(with(now, 5, 3), 16, 1), "is to begin at 1"},
		{"hello between writes", with(hello, 6, flagNow), "flags 0x2"},
		{"in force between writes", with(inForce, 6, flagNow), "flags 0x2"},
		{"way without a count", wireHops(1, 3)[:headerLen], "without a count"},
		{"way of no hops", wireHops(0, 0), "of 0 hops"},
		{"way of no hops, and one", with(wireHops(1, 3), 4, 0), "of 0 hops"},
		{"way of 33 hops", wireHops(33, 0), "of 33 hops"},
		{"way of 255 hops", wireHops(255, 0), "of 255 hops"},
		{"way with fewer hops than it says", with(wireHops(1, 3), 4, 2), "cut off"},
		{"way with more hops than it says", with(wireHops(2, 3), 4, 1), "16 bytes too many"},
		{"way and a byte", wireHops(1, 3) + "\x00", "1 bytes too many"},
		{"longest way and a byte", wireHops(32, 200) + "\x00", "1 bytes too many"},
		{"way with a program of 201 bytes", wireHops(1, 201), "cut off"},
		{"way with a program of 255 bytes", wireHops(1, 255), "cut off"},
		{"way with a program longer than the message", with(wireHops(1, 3), 20, 4), "cut off"},
		{"way's count of origins", with(wireHops(1, 3), 5, 2), "without a count"},
		{"way without the origin that it says", with(wireHops(1, 3), 5, 1), "cut off in its origin"},
		{"way with an origin that it doesn't say", with(encodedText(&Way{Hops: hops(1, 3).Hops, Origin: &token.Origin{}}), 5, 0), "8 bytes too many"},
		{"way of no hops with an origin that it doesn't say", with(nowhere, 5, 0), "of 0 hops"},
		{"way of 33 hops from another machine", with(nowhere, 4, 33), "of 33 hops"},
		{"origin and a byte", remote + "\x00", "1 bytes too many"},
		{"origin's address of 5 bytes", nowhere[:8] + "\x05" + strings.Repeat("\x00", 5) + nowhere[9:], "of 5 bytes"},
		{"origin's address of 3 bytes", nowhere[:8] + "\x03" + strings.Repeat("\x00", 3) + nowhere[9:], "of 3 bytes"},
		{"origin's address in another clothing", nowhere[:8] + "\x10" + strings.Repeat("\x00", 10) + "\xff\xff\xc0\x00\x02\x07" + nowhere[9:], "of 16 bytes"},
		{"origin's port of no address", with(nowhere, 10, 1), "of 0 bytes"},
		{"origin's encryption", with(remote, 15, 2), "encrypted in way 2"},
		{"origin's account longer than the message", with(remote, 16, 255), "cut off in its origin"},
		{"origin's SIDs longer than the message", with(remote, len(remote)-8, 0xff), "cut off in its origin"},
		{"origin's SIDs longer than they may be", nowhere[:len(nowhere)-2] + "\x61\xeaS-1-" + strings.Repeat("1", 59997), "60001 bytes"},
		{"origin's SID without a number", with(remote, len(remote)-1, '-')[:len(remote)-4] + " S-1", "among its SIDs"},
		{"origin's SID of another revision", with(remote, len(remote)-5, '2'), "among its SIDs"},
		{"origin's SID with a line in it", with(remote, len(remote)-1, '\n'), "among its SIDs"},
		{"origin's SIDs with nothing between", with(remote, len(remote)-1, ' '), "among its SIDs"},
		{"way's second reserved byte", with(wireHops(1, 3), 6, 1), "without a count"},
		{"way's third reserved byte", with(wireHops(1, 3), 7, 0x80), "without a count"},
		{"short lost", lost[:len(lost)-1], "bytes long"},
		{"long lost", lost + "\x00", "bytes long"},
		{"lost's first reserved byte", with(lost, 4, 1), "reserved"},
		{"lost's second reserved byte", with(lost, 5, 1), "reserved"},
		{"lost's third reserved byte", with(lost, 6, 1), "reserved"},
		{"lost's fourth reserved byte", with(lost, 7, 0x80), "reserved"},
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

func TestDecodeRefusesAMessageThatIsCutOffAnywhere(t *testing.T) {
	for _, test := range messages {
		t.Run(test.name, func(t *testing.T) {
			for n := range test.wire {
				if len(test.wire) > 1<<14 && n > 1<<10 && n%97 != 0 {
					continue // it is the same byte again and again
				}
				if m, err := decode([]byte(test.wire[:n])); !errors.Is(err, ErrProtocol) {
					t.Errorf("the first %d bytes decode as %+v, %v, want ErrProtocol", n, m, err)
				}
			}
		})
	}
}

func TestNoMessageIsLongerThanWhatIsReceived(t *testing.T) {
	for _, test := range messages {
		if len(test.wire) > longest {
			t.Errorf("%s is %d bytes long, and there is room for %d", test.name, len(test.wire), longest)
		}
	}
}

func TestWayHasAtMost32Hops(t *testing.T) {
	if b, err := hops(33, 1).encode(); !errors.Is(err, ErrTooFar) || b != nil {
		t.Errorf("33 hops are encoded as %q, %v, want ErrTooFar", b, err)
	}
}

func TestWayLeavesOutWhatIsTooLong(t *testing.T) {
	full := token.Origin{Client: netip.MustParseAddrPort("192.0.2.7:1"), Account: "alice", Domain: "TEST", SIDs: []string{"S-1-5-7"}, Encrypted: true}
	tests := []struct {
		name string
		edit func(*token.Origin)
		want func(*token.Origin)
	}{
		{"account", func(o *token.Origin) { o.Account = strings.Repeat("a", 256) }, func(o *token.Origin) { o.Account = "" }},
		{"domain", func(o *token.Origin) { o.Domain = strings.Repeat("a", 256) }, func(o *token.Origin) { o.Domain = "" }},
		{"SIDs", func(o *token.Origin) { o.SIDs = slices.Repeat([]string{"S-1-5-21-4294967295"}, 3001) }, func(o *token.Origin) { o.SIDs = nil }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			told, want := full, full
			test.edit(&told)
			test.want(&want)
			got, err := decode(encoded(&Way{Origin: &told}))
			if err != nil || !reflect.DeepEqual(got, &Way{Origin: &want}) {
				t.Errorf("it arrives as %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

func TestWayTellsTheEndOfALongPathAndCleanText(t *testing.T) {
	tests := []struct{ name, program, want string }{
		{"longer than there is room for", "/begin/" + strings.Repeat("d", 200-len("/end")) + "/end", strings.Repeat("d", 200-len("/end")) + "/end"},
		{"one byte too long", "x" + strings.Repeat("y", 200), strings.Repeat("y", 200)},
		{"not UTF-8", "/bin/\xff\xfe!", "/bin/?!"},
		{"cut in the middle of a character", "\u00e9" + strings.Repeat("z", 199), "?" + strings.Repeat("z", 199)},
		{"nothing but what is not UTF-8", strings.Repeat("\x80", 300), "?"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := decode(encoded(&Way{Hops: []token.Hop{{PID: 1, Program: test.program}}}))
			if want := (&Way{Hops: []token.Hop{{PID: 1, Program: test.want}}}); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("it arrives as %+v, %v, want %+v", got, err, want)
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
	f.Add(encoded(&Way{Hops: []token.Hop{{PID: -1, Program: "\xff\x00?"}}}))
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
		again := encoded(m)
		if same, err := decode(again); err != nil || !reflect.DeepEqual(same, m) {
			t.Fatalf("%q decodes as %+v, which encodes as %q, which decodes as %+v, %v", b, m, again, same, err)
		}
		if w, ok := m.(*Way); ok && (strings.Contains(fmt.Sprint(w.Hops), "?") || w.Origin != nil && strings.Contains(w.Origin.Account+w.Origin.Domain, "?")) {
			return // something in it may have been no UTF-8
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%q decodes as %+v, which encodes as %q", b, m, again)
		}
	})
}
