package smb

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestKerberosConfiguration(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(at("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, at("d/b.conf"), "[realms]\n B.TEST = {\n kdc = b1.test\n }\n", 0o644)
	write(t, at("d/a_1"), "[domain_realm]\n .b.test = B.TEST\n", 0o644)
	write(t, at("d/ignored.rpmsave"), "nonsense\n", 0o644)
	write(t, at("d/.hidden.conf"), "nonsense\n", 0o644)
	write(t, at("krb5.conf"), `# A comment
; another
includedir `+at("d")+`

[logging]
 default = FILE:/var/log/krb5libs.log
[libdefaults]
	default_realm = A.TEST
	default_realm = IGNORED.TEST
	dns_lookup_kdc = off
	default_ccache_name = DIR:/run/user/%{uid}/krb5cc
	clockskew = 2m
	ticket_lifetime = 1d 2h
	permitted_enctypes = aes256-cts-hmac-sha1-96 rc4-hmac des-cbc-crc unknown
	A.TEST = {
		something = else
	}
[realms]
	A.TEST = {
		kdc = a1.test
		kdc = a2.test:1088
		kdc = [2001:db8::1]:99
		admin_server = a1.test
		auth_to_local_names = {
			kdc = no
		}
		v4_name_convert = {
			host = {
				rcmd = host
			}
		}
	}
	"D.TEST" = { 
	}
[domain_realm]
	.A.test = A.TEST
	host.c.test = C.TEST
[plugins]
	x = { 
		y = "z = 1"
	}
`, 0o644)
	c, err := loadConf([]string{at("krb5.conf")})
	if err != nil {
		t.Fatal(err)
	}
	if c.defaultRealm != "A.TEST" || c.lookupKDC || c.cacheName != "DIR:/run/user/%{uid}/krb5cc" || c.clockSkew != 2*time.Minute || c.lifetime != 26*time.Hour || !slices.Equal(c.etypes, []int32{18, 23}) {
		t.Errorf("%+v", c)
	}
	if got := c.realms["A.TEST"]; !slices.Equal(got, []string{"a1.test", "a2.test:1088", "[2001:db8::1]:99"}) {
		t.Errorf("KDCs of A.TEST: %q", got)
	}
	if got := c.realms["B.TEST"]; !slices.Equal(got, []string{"b1.test"}) {
		t.Errorf("KDCs of B.TEST: %q", got)
	}
	for host, want := range map[string]string{"x.a.test": "A.TEST", "X.Y.A.TEST.": "A.TEST", "host.c.test": "C.TEST", "c.test": "", "x.b.test": "B.TEST", "short": ""} {
		if got := c.realmOf(host); got != want {
			t.Errorf("%s is in %q, want %q", host, got, want)
		}
	}

	for text, want := range map[string]string{
		"[libdefaults]\nnonsense\n":                       "line 2",
		"[libdefaults]\n\nclockskew = soon\n":             "line 3",
		"[libdefaults]\ndns_lookup_kdc = perhaps\n":       "line 2",
		"[realms]\nA = {\nkdc = x\n":                      "not closed",
		"[realms]\n}\n":                                   "line 2",
		"[realms\n":                                       "line 1",
		"include " + at("none") + "\n":                    "none",
		"include " + at("bad") + "\n":                     "too many includes",
		"[libdefaults]\nticket_lifetime = 99999999999d\n": "line 2",
	} {
		write(t, at("bad"), text, 0o644)
		if _, err := loadConf([]string{at("bad")}); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%q: %v; want one that says %s", text, err, want)
		}
	}
	if _, err := loadConf([]string{at("none"), at("krb5.conf")}); err != nil {
		t.Errorf("the first of two is missing: %v", err)
	}
	if _, err := loadConf([]string{at("none")}); !errors.Is(err, ErrConfig) {
		t.Errorf("the only one is missing: %v", err)
	}
	if _, err := loadConf([]string{"/dev/null"}); !errors.Is(err, ErrConfig) {
		t.Errorf("no regular file: %v", err)
	}
}

// What Debian installs can be read.
func TestConfigurationOfThisMachine(t *testing.T) {
	if _, err := loadConf([]string{defaultConf}); err != nil {
		t.Error(err)
	}
}

func FuzzConfiguration(f *testing.F) {
	f.Add("[libdefaults]\n clockskew = 1:2:3\n[realms]\n A = {\n kdc = x\n }\n")
	name := filepath.Join(f.TempDir(), "krb5.conf")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "include") {
			return
		}
		write(t, name, text, 0o600)
		_, _ = loadConf([]string{name})
	})
}

func TestSpans(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"300": 5 * time.Minute, "0": 0, "5m": 5 * time.Minute, "1d2h3m4s": 26*time.Hour + 3*time.Minute + 4*time.Second, "1d 2h": 26 * time.Hour, "10:00": 10 * time.Hour, "1:2:3": time.Hour + 2*time.Minute + 3*time.Second,
	} {
		if got, err := parseSpan(s); got != want || err != nil {
			t.Errorf("%s is %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "x", "-1", "1y", "1:2:3:4", "d", "99999999999999999999"} {
		if got, err := parseSpan(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}
