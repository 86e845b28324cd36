package smb

import (
	"errors"
	"strings"
	"testing"

	"github.com/guise-project/guise"
)

func TestNames(t *testing.T) {
	long := strings.Repeat("n", 64)
	for name, want := range map[string][2]string{
		`\\host\pipe\Spool`:                         {"host", "spool"},
		`//host/pipe/Spool`:                         {"host", "spool"},
		`\\Host.Example\PIPE\a.b_c-d`:               {"Host.Example", "a.b_c-d"},
		`\\192.0.2.7\pipe\x`:                        {"192.0.2.7", "x"},
		`\\2001:db8::1\pipe\x`:                      {"2001:db8::1", "x"},
		`\\[2001:db8::1]\pipe\x`:                    {"2001:db8::1", "x"},
		`//fe80::1%eth0/pipe/x`:                     {"fe80::1%eth0", "x"},
		`\\localhost\pipe\x`:                        {"localhost", "x"},
		`\\h\pipe\` + long:                          {"h", long},
		`\\` + strings.Repeat("h", 253) + `\pipe\x`: {strings.Repeat("h", 253), "x"},
	} {
		got, err := parseName(name)
		if err != nil || got.host != want[0] || got.pipe != want[1] {
			t.Errorf("%s: %+v, %v; want %v", name, got, err, want)
		}
	}
	for _, name := range []string{
		"", "spool", "/run/x", `\\`, `\\host`, `\\host\pipe`, `\\host\pipe\`, `\\host\share\x`, `\\host\pipe\x\y`, `\\host\pipe/x`,
		`\\host/pipe/x`, `//host\pipe\x`, `\\\pipe\x`, `\\ho st\pipe\x`, `\\host@evil\pipe\x`, `\\-h\pipe\x`, `\\.h\pipe\x`, `\\a..b\pipe\x`,
		`\\host\pipe\..`, `\\host\pipe\.`, `\\host\pipe\a b`, `\\host\pipe\` + long + "n", `\\host\pipe\ä`, "\\\\host\x00\\pipe\\x",
		`\\` + strings.Repeat("h", 254) + `\pipe\x`, `\\host:445\pipe\x`,
	} {
		if got, err := parseName(name); !errors.Is(err, guise.ErrBadName) {
			t.Errorf("%q: %+v, %v; want an error", name, got, err)
		}
	}
	for _, name := range []string{`\\.\pipe\x`, `//./pipe/x`, "x"} {
		if _, err := parseName(name); err == nil || !strings.Contains(err.Error(), "guise.Dial") {
			t.Errorf("%s: %v; want an error that points to guise.Dial", name, err)
		}
	}
}
