package smb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/iana/etypeID"

	"github.com/guise-project/guise/internal/secureexec"
)

// krb5Conf is what krb5.conf says that matters to a client that has its tickets. gokrb5's own reader knows no include and
// includedir, fails on what it does not know, and leaves default_ccache_name out.
type krb5Conf struct {
	cacheName    string // default_ccache_name, "" if unset
	defaultRealm string
	lookupKDC    bool
	clockSkew    time.Duration
	etypes       []int32
	lifetime     time.Duration
	forwardable  bool
	proxiable    bool
	realms       map[string][]string // of KDCs
	domains      map[string]string   // to realms
}

const (
	longestConf  = 1 << 20
	deepestConf  = 10
	defaultConf  = "/etc/krb5.conf"
	confVariable = "KRB5_CONFIG"
)

// defaultETypes are what is asked for where krb5.conf does not say: aes256-sha1, aes128-sha1, aes256-sha384, aes128-sha256.
// RC4 has to be asked for by name.
var defaultETypes = []int32{etypeID.AES256_CTS_HMAC_SHA1_96, etypeID.AES128_CTS_HMAC_SHA1_96, etypeID.AES256_CTS_HMAC_SHA384_192, etypeID.AES128_CTS_HMAC_SHA256_128}

// confFiles returns the files that the configuration is read from. It is the process's, in a scope too, where its environment does
// not count.
func confFiles(inScope bool) []string {
	if v := os.Getenv(confVariable); v != "" && !inScope && !secureexec.Is() {
		return strings.Split(v, ":")
	}
	return []string{defaultConf}
}

// loadConf reads the configuration. Of several files those that are missing count as empty, but not all of them.
func loadConf(files []string) (*krb5Conf, error) {
	c := &krb5Conf{
		lookupKDC: true,
		clockSkew: 5 * time.Minute,
		lifetime:  24 * time.Hour,
		realms:    make(map[string][]string),
		domains:   make(map[string]string),
	}
	found := false
	var missing error
	for _, file := range files {
		p := confParser{conf: c}
		err := p.file(file, 0)
		if errors.Is(err, os.ErrNotExist) && len(p.names) == 0 {
			missing = err
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrConfig, err)
		}
		found = true
	}
	if !found && missing != nil && len(files) > 0 && files[0] != defaultConf {
		return nil, fmt.Errorf("%w: %w", ErrConfig, missing)
	}
	if len(c.etypes) == 0 {
		c.etypes = defaultETypes
	}
	return c, nil
}

type confParser struct {
	conf    *krb5Conf
	names   []string // of the files that were read
	section string
	within  []string // the names of the open braces
	final   map[string]bool
}

// file reads a file, of which braces and sections end with it.
func (p *confParser) file(name string, depth int) error {
	if depth > deepestConf {
		return fmt.Errorf("%s: too many includes in one another", name)
	}
	text, err := readBounded(name, longestConf)
	if err != nil {
		return fmt.Errorf("reading the Kerberos configuration: %w", err)
	}
	p.names = append(p.names, name)
	outer, outerWithin := p.section, p.within
	p.section, p.within = "", nil
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if err := p.line(strings.TrimSpace(string(line)), depth); err != nil {
			return fmt.Errorf("%s, line %d: %w", name, n, err)
		}
	}
	if len(p.within) > 0 {
		return fmt.Errorf("%s: the brace of %s is not closed", name, p.within[len(p.within)-1])
	}
	p.section, p.within = outer, outerWithin
	return nil
}

func readBounded(name string, most int) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	if info.Size() > int64(most) {
		return nil, fmt.Errorf("%s is too large: %d bytes", name, info.Size())
	}
	return os.ReadFile(name)
}

func (p *confParser) line(s string, depth int) error {
	switch {
	case s == "" || s[0] == '#' || s[0] == ';':
		return nil
	case strings.HasPrefix(s, "include ") || strings.HasPrefix(s, "include\t"):
		return p.file(strings.TrimSpace(s[len("include"):]), depth+1)
	case strings.HasPrefix(s, "includedir ") || strings.HasPrefix(s, "includedir\t"):
		return p.directory(strings.TrimSpace(s[len("includedir"):]), depth+1)
	case s == "module" || strings.HasPrefix(s, "module "):
		return errors.New("modules are for libkrb5 and can't be read here")
	case s[0] == '[':
		name, _, ok := strings.Cut(s[1:], "]")
		if !ok || len(p.within) > 0 {
			return fmt.Errorf("%q does not begin a section", s)
		}
		p.section = strings.TrimSpace(name)
		return nil
	case strings.TrimSuffix(s, "*") == "}":
		if len(p.within) == 0 {
			return errors.New("a brace is closed that was not opened")
		}
		p.within = p.within[:len(p.within)-1]
		return nil
	}
	key, value, ok := strings.Cut(s, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if !ok || key == "" {
		return fmt.Errorf("%q is neither a section nor a setting", s)
	}
	key = strings.TrimSuffix(key, "*")
	if value == "{" {
		p.within = append(p.within, key)
		return nil
	}
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	return p.set(key, value)
}

// directory reads the files of a directory that libkrb5 would: names of letters, digits, '-' and '_', or that end in .conf.
func (p *confParser) directory(name string, depth int) error {
	entries, err := os.ReadDir(name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".conf") && strings.ContainsFunc(e.Name(), func(r rune) bool {
			return r > 0x7f || !letterOrDigit(byte(r)) && r != '-' && r != '_'
		}) {
			continue
		}
		if err := p.file(filepath.Join(name, e.Name()), depth); err != nil {
			return err
		}
	}
	return nil
}

func (p *confParser) set(key, value string) error {
	c := p.conf
	switch {
	case p.section == "libdefaults" && len(p.within) == 0:
		return p.setDefault(key, value)
	case p.section == "realms" && len(p.within) == 1 && key == "kdc":
		realm := p.within[0]
		if !slices.Contains(c.realms[realm], value) {
			c.realms[realm] = append(c.realms[realm], strings.TrimSpace(strings.TrimSuffix(value, "*")))
		}
	case p.section == "domain_realm" && len(p.within) == 0:
		key = strings.ToLower(key)
		if _, ok := c.domains[key]; !ok {
			c.domains[key] = value
		}
	}
	return nil
}

// setDefault takes the first of several values, as libkrb5 does.
func (p *confParser) setDefault(key, value string) (err error) {
	if p.final[key] {
		return nil
	}
	if p.final == nil {
		p.final = make(map[string]bool)
	}
	p.final[key] = true
	c := p.conf
	switch key {
	case "default_ccache_name":
		c.cacheName = value
	case "default_realm":
		c.defaultRealm = value
	case "dns_lookup_kdc":
		c.lookupKDC, err = parseBool(value)
	case "forwardable":
		c.forwardable, err = parseBool(value)
	case "proxiable":
		c.proxiable, err = parseBool(value)
	case "clockskew":
		c.clockSkew, err = parseSpan(value)
	case "ticket_lifetime":
		c.lifetime, err = parseSpan(value)
	case "permitted_enctypes", "default_tgs_enctypes":
		if len(c.etypes) == 0 {
			c.etypes = parseETypes(value)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// parseETypes takes the names that gokrb5 knows, but for single DES and triple DES.
func parseETypes(value string) (ids []int32) {
	for _, name := range strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' }) {
		add := []int32{etypeID.EtypeSupported(name)}
		switch strings.ToLower(name) {
		case "aes", "default":
			add = defaultETypes
		case "aes256-cts", "aes256-sha1":
			add = []int32{etypeID.AES256_CTS_HMAC_SHA1_96}
		case "aes128-cts", "aes128-sha1":
			add = []int32{etypeID.AES128_CTS_HMAC_SHA1_96}
		case "aes256-sha2":
			add = []int32{etypeID.AES256_CTS_HMAC_SHA384_192}
		case "aes128-sha2":
			add = []int32{etypeID.AES128_CTS_HMAC_SHA256_128}
		case "rc4", "rc4-hmac", "arcfour-hmac", "arcfour-hmac-md5":
			add = []int32{etypeID.RC4_HMAC}
		}
		for _, id := range add {
			if (id == etypeID.RC4_HMAC || slices.Contains(defaultETypes, id)) && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "y", "yes", "true", "t", "1", "on":
		return true, nil
	case "n", "no", "false", "f", "nil", "0", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", s)
}

// parseSpan understands seconds, 1d2h3m4s with any of them, and h:m and h:m:s.
func parseSpan(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a length of time", s)
	const most = 1 << 31
	if strings.Contains(s, ":") {
		var total, parts uint64
		for field := range strings.SplitSeq(s, ":") {
			v, err := strconv.ParseUint(field, 10, 31)
			if err != nil || parts == 3 {
				return 0, bad
			}
			total, parts = total*60+v, parts+1
		}
		if parts == 2 {
			total *= 60
		}
		if total > most {
			return 0, bad
		}
		return time.Duration(total) * time.Second, nil
	}
	var total, number uint64
	digits := false
	units := map[byte]uint64{'d': 86400, 'h': 3600, 'm': 60, 's': 1}
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			number, digits = number*10+uint64(c-'0'), true
		case units[c|0x20] != 0 && digits:
			total, number, digits = total+number*units[c|0x20], 0, false
		case c != ' ' && c != '\t':
			return 0, bad
		}
		if number > most || total > most {
			return 0, bad
		}
	}
	if s == "" {
		return 0, bad
	}
	return time.Duration(total+number) * time.Second, nil
}

// realmOf returns the realm that the configuration has a host in, "" if it says nothing about it.
func (c *krb5Conf) realmOf(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if realm := c.domains[host]; realm != "" {
		return realm
	}
	for {
		_, domain, ok := strings.Cut(host, ".")
		if !ok {
			return ""
		}
		if realm := c.domains["."+domain]; realm != "" {
			return realm
		}
		if realm := c.domains[domain]; realm != "" {
			return realm
		}
		host = domain
	}
}

// library is the configuration as gokrb5 wants it to make its requests.
func (c *krb5Conf) library() *config.Config {
	lib := &config.Config{DomainRealm: make(config.DomainRealm)}
	lib.LibDefaults.DefaultRealm = c.defaultRealm
	lib.LibDefaults.Clockskew = c.clockSkew
	lib.LibDefaults.DefaultTGSEnctypeIDs = c.etypes
	lib.LibDefaults.TicketLifetime = c.lifetime
	lib.LibDefaults.Forwardable = c.forwardable
	lib.LibDefaults.Proxiable = c.proxiable
	lib.LibDefaults.NoAddresses = true
	// Without it the KDC does not refer to other realms.
	lib.LibDefaults.Canonicalize = true
	return lib
}
