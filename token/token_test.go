package token_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/token"
)

func fromIDs(t *testing.T, uid, gid uint32, groups ...uint32) *token.Token {
	t.Helper()
	tok, err := token.FromIDs(uid, gid, groups)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestSelfIsTheThreadsEffectiveContext(t *testing.T) {
	self, err := token.Self()
	if err != nil {
		t.Fatal(err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	same := slices.EqualFunc(self.Groups(), groups, func(a uint32, b int) bool { return int(a) == b })
	if int(self.UID()) != os.Geteuid() || int(self.GID()) != os.Getegid() || !same {
		t.Errorf("Self = %v", self)
	}
	if self.Source() != (token.Source{Kind: token.FromThread, PID: os.Getpid()}) {
		t.Errorf("it is from %+v", self.Source())
	}
	if root := os.Geteuid() == 0; (self.Capabilities() != token.Capabilities{}) != root {
		t.Errorf("its capabilities are %v", self.Capabilities())
	}
}

// TestLookupFindsWhatIDPrints compares with id(1) for every account that this system has, up to a bound.
func TestLookupFindsWhatIDPrints(t *testing.T) {
	accounts, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Skip(err)
	}
	tried, withGroups := 0, 0
	for line := range strings.Lines(string(accounts)) {
		name, _, _ := strings.Cut(line, ":")
		out, err := exec.Command("id", "-G", name).Output()
		if err != nil || tried == 20 {
			continue
		}
		tried++
		got, err := token.Lookup(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var want []uint32
		for _, f := range strings.Fields(string(out)) {
			n, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, uint32(n))
		}
		if got.GID() != want[0] {
			t.Errorf("%s: gid %d, want %d", name, got.GID(), want[0])
		}
		slices.Sort(want)
		if want = slices.Compact(want); !slices.Equal(got.Groups(), want) {
			t.Errorf("%s: groups %d, want %d", name, got.Groups(), want)
		}
		if len(want) > 1 {
			withGroups++
		}
		u, err := user.Lookup(name)
		if err != nil || u.Uid != fmt.Sprint(got.UID()) {
			t.Errorf("%s: uid %d, want %s, %v", name, got.UID(), u.Uid, err)
		}
		byID, err := token.Lookup(u.Uid)
		if first, _ := user.LookupId(u.Uid); first != nil && first.Username == name && (err != nil || !byID.Equal(got)) {
			t.Errorf("by uid %s: %v, %v, want %v", u.Uid, byID, err, got)
		}
	}
	if tried == 0 {
		t.Skip("there is no account, or no id(1), to compare with")
	}
	t.Logf("%d accounts, %d with supplementary groups", tried, withGroups)
}

func TestLookupOfNobodyIsAnError(t *testing.T) {
	for _, account := range []string{"", "guise-no-such-account", "4294967294", "-1", "4294967295", "4294967296", "root\x00", "0x0"} {
		if got, err := token.Lookup(account); err == nil {
			t.Errorf("Lookup(%q) = %v", account, got)
		}
	}
}

func TestFromIDsSortsGroupsAsTheKernelDoes(t *testing.T) {
	given := []uint32{61005, 61003, 61005, 0}
	got := fromIDs(t, 61001, 61002, given...)
	if want := []uint32{0, 61003, 61005}; !slices.Equal(got.Groups(), want) {
		t.Errorf("groups %d, want %d", got.Groups(), want)
	}
	if !slices.Equal(given, []uint32{61005, 61003, 61005, 0}) {
		t.Errorf("the caller's slice is %d now", given)
	}
	if got.Source() != (token.Source{Kind: token.FromAccount}) {
		t.Errorf("it is from %+v", got.Source())
	}
}

func TestFromIDsRefusesWhatMeansUnchanged(t *testing.T) {
	const invalid = ^uint32(0)
	for _, ids := range []struct {
		uid, gid uint32
		groups   []uint32
	}{{invalid, 1, nil}, {1, invalid, nil}, {1, 1, []uint32{1, invalid}}} {
		if got, err := token.FromIDs(ids.uid, ids.gid, ids.groups); !errors.Is(err, token.ErrNotWearable) || got != nil {
			t.Errorf("FromIDs%v = %v, %v", ids, got, err)
		}
	}
}

func TestWhatIsNeverWorn(t *testing.T) {
	never := map[string]*token.Token{
		"nil":            nil,
		"the zero token": {},
		"overflow uid":   fromIDs(t, 65534, 61001),
		"overflow gid":   fromIDs(t, 61001, 65534),
		"overflow group": fromIDs(t, 61001, 61001, 61001, 65534),
	}
	for name, tok := range never {
		if err := tok.Wearable(); !errors.Is(err, token.ErrNotWearable) {
			t.Errorf("%s: %v, want ErrNotWearable", name, err)
		}
	}
	for _, level := range []token.Level{token.Anonymous, token.Identification} {
		low := fromIDs(t, 61001, 61001).Restrict(token.Statement{Level: level, Capabilities: token.AllCapabilities})
		if err := low.Wearable(); !errors.Is(err, token.ErrLevel) {
			t.Errorf("at level %v: %v, want ErrLevel", level, err)
		}
	}
	for _, level := range []token.Level{token.LevelUnstated, token.Impersonation, token.Delegation} {
		high := fromIDs(t, 61001, 61001).Restrict(token.Statement{Level: level, Capabilities: token.AllCapabilities})
		if err := high.Wearable(); err != nil {
			t.Errorf("at level %v: %v", level, err)
		}
	}
}

func TestGroupsAreTheCallersCopy(t *testing.T) {
	tok := fromIDs(t, 61001, 61002, 61003, 61004)
	tok.Groups()[0] = 0
	appended := tok.AppendGroups(nil)
	appended[1] = 0
	if !slices.Equal(tok.Groups(), []uint32{61003, 61004}) {
		t.Errorf("the token's groups are %d now", tok.Groups())
	}
	groups := []uint32{61003}
	made := fromIDs(t, 61001, 61002, groups...)
	groups[0] = 0
	if !slices.Equal(made.Groups(), []uint32{61003}) {
		t.Errorf("the token's groups are %d now", made.Groups())
	}
	if got := tok.AppendGroups([]uint32{7}); !slices.Equal(got, []uint32{7, 61003, 61004}) {
		t.Errorf("AppendGroups = %d", got)
	}
}

func TestHasGroup(t *testing.T) {
	tok := fromIDs(t, 61001, 61002, 61003)
	for gid, want := range map[uint32]bool{61001: false, 61002: true, 61003: true, 0: false} {
		if tok.HasGroup(gid) != want {
			t.Errorf("HasGroup(%d) = %v", gid, !want)
		}
	}
}

func TestRestrictOnlyLowers(t *testing.T) {
	all := token.Statement{Capabilities: token.AllCapabilities}
	level := func(l token.Level) token.Statement {
		return token.Statement{Level: l, Capabilities: token.AllCapabilities}
	}
	start := fromIDs(t, 0, 0)
	tests := []struct {
		name       string
		statements []token.Statement
		level      token.Level
		only       bool
		caps       token.Capabilities
	}{
		{"nothing", []token.Statement{all}, token.Impersonation, false, token.AllCapabilities},
		{"states a level", []token.Statement{level(token.Identification)}, token.Identification, false, token.AllCapabilities},
		{"states the highest", []token.Statement{level(token.Delegation)}, token.Delegation, false, token.AllCapabilities},
		{"lowers it", []token.Statement{level(token.Delegation), level(token.Anonymous)}, token.Anonymous, false, token.AllCapabilities},
		{"can't raise it", []token.Statement{level(token.Identification), level(token.Delegation)}, token.Identification, false, token.AllCapabilities},
		{"can't unstate it", []token.Statement{level(token.Anonymous), all}, token.Anonymous, false, token.AllCapabilities},
		{"effective-only", []token.Statement{{EffectiveOnly: true, Capabilities: token.Capabilities{Permitted: 7, Effective: 2}}, all},
			token.Impersonation, true, token.Capabilities{Permitted: 2, Effective: 2}},
		{"capabilities", []token.Statement{{Capabilities: token.Capabilities{Permitted: 6, Effective: 6}}, {Capabilities: token.Capabilities{Permitted: 12, Effective: 6}}},
			token.Impersonation, false, token.Capabilities{Permitted: 4, Effective: 4}},
		{"effective ones are permitted", []token.Statement{{Capabilities: token.Capabilities{Permitted: 1, Effective: 3}}},
			token.Impersonation, false, token.Capabilities{Permitted: 1, Effective: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := start
			for _, s := range test.statements {
				got = got.Restrict(s)
			}
			if got.Level() != test.level || got.EffectiveOnly() != test.only || got.Capabilities() != test.caps {
				t.Errorf("level %v, effective-only %v, capabilities %x; want %v, %v, %x",
					got.Level(), got.EffectiveOnly(), got.Capabilities(), test.level, test.only, test.caps)
			}
			if start.Level() != token.Impersonation || start.EffectiveOnly() || start.Capabilities() != token.AllCapabilities {
				t.Error("the token itself has changed")
			}
		})
	}
}

func TestOnlyUID0HasCapabilities(t *testing.T) {
	if c := fromIDs(t, 0, 61001).Capabilities(); c != token.AllCapabilities {
		t.Errorf("root's: %v", c)
	}
	if c := fromIDs(t, 61001, 0, 0).Capabilities(); c != (token.Capabilities{}) {
		t.Errorf("an ordinary user's: %v", c)
	}
}

func TestTokensCompareByContent(t *testing.T) {
	base := func() *token.Token { return fromIDs(t, 61001, 61002, 61003) }
	root := fromIDs(t, 0, 61002, 61003)
	differ := map[string][2]*token.Token{
		"uid":            {base(), fromIDs(t, 61009, 61002, 61003)},
		"gid":            {base(), fromIDs(t, 61001, 61009, 61003)},
		"groups":         {base(), fromIDs(t, 61001, 61002)},
		"other groups":   {base(), fromIDs(t, 61001, 61002, 61009)},
		"level":          {base(), base().Restrict(token.Statement{Level: token.Identification, Capabilities: token.AllCapabilities})},
		"effective-only": {base(), base().Restrict(token.Statement{EffectiveOnly: true, Capabilities: token.AllCapabilities})},
		"capabilities":   {root, root.Restrict(token.Statement{})},
		"nil":            {base(), nil},
	}
	for name, pair := range differ {
		if pair[0].Equal(pair[1]) || pair[1].Equal(pair[0]) {
			t.Errorf("tokens are equal that differ in %s", name)
		}
	}
	same := map[string][2]*token.Token{
		"made alike":        {base(), base()},
		"order of groups":   {fromIDs(t, 1, 2, 3, 4), fromIDs(t, 1, 2, 4, 3, 3)},
		"where from":        {base(), base().AsProof()},
		"nobody's":          {nil, nil},
		"useless statement": {base(), base().Restrict(token.Statement{Level: token.Impersonation})},
	}
	for name, pair := range same {
		if !pair[0].Equal(pair[1]) || !pair[1].Equal(pair[0]) {
			t.Errorf("tokens differ: %s", name)
		}
	}
}

func TestTokensPrintAsAPersonWouldWriteThem(t *testing.T) {
	root := "0"
	if u, err := user.LookupId("0"); err == nil {
		root = u.Username + "(0)"
	}
	rootGroup := "0"
	if g, err := user.LookupGroupId("0"); err == nil {
		rootGroup = g.Name + "(0)"
	}
	tests := []struct {
		tok  *token.Token
		want string
	}{
		{nil, "nobody"},
		{&token.Token{}, "nobody"},
		{fromIDs(t, 61001, 61002), "61001 groups=61002"},
		{fromIDs(t, 61001, 61002, 61002, 61003, 61001), "61001 groups=61002,61001,61003"},
		{fromIDs(t, 61001, 0), "61001 groups=" + rootGroup},
		{fromIDs(t, 0, 61002), root + " groups=61002 capabilities=all"},
		{fromIDs(t, 0, 61002).Restrict(token.Statement{Capabilities: token.Capabilities{Permitted: 0xc0, Effective: 0x40}}),
			root + " groups=61002 capabilities=setgid of setgid,setuid"},
		{fromIDs(t, 61001, 61002).Restrict(token.Statement{Level: token.Identification, EffectiveOnly: true}),
			"61001 groups=61002 level=identification effective-only"},
	}
	for _, test := range tests {
		if got := test.tok.String(); got != test.want {
			t.Errorf("String = %q, want %q", got, test.want)
		}
		if text, err := test.tok.MarshalText(); string(text) != test.want || err != nil {
			t.Errorf("MarshalText = %q, %v, want %q", text, err, test.want)
		}
		if got := test.tok.LogValue(); got.Kind() != slog.KindString || got.String() != test.want {
			t.Errorf("LogValue = %v, want %q", got, test.want)
		}
	}
	if got := fromIDs(t, 65534, 61001).String(); !strings.Contains(got, "(never worn: uid 65534") {
		t.Errorf("String = %q", got)
	}
}

func TestTokensMarshalToJSON(t *testing.T) {
	tok := fromIDs(t, 61001, 61002, 61003).Restrict(token.Statement{Level: token.Delegation, EffectiveOnly: true})
	b, err := json.Marshal(map[string]any{"token": tok, "none": (*token.Token)(nil)})
	const want = `{"none":null,"token":{"user":{"id":61001},"group":{"id":61002},"groups":[{"id":61003}],"level":"delegation",` +
		`"effectiveOnly":true,"permitted":"none","effective":"none","source":"account"}}`
	if err != nil || string(b) != want {
		t.Errorf("Marshal = %s, %v, want %s", b, err, want)
	}
	b, err = json.Marshal(fromIDs(t, 0, 65534))
	if err != nil || !strings.Contains(string(b), `"neverWorn":"gid 65534`) || !strings.Contains(string(b), `"permitted":"all"`) || !strings.Contains(string(b), `"groups":[]`) {
		t.Errorf("Marshal = %s, %v", b, err)
	}
}

func TestLevelsHaveNames(t *testing.T) {
	for want := token.LevelUnstated; want <= token.Delegation; want++ {
		if got, err := token.ParseLevel(want.String()); got != want || err != nil {
			t.Errorf("ParseLevel(%q) = %v, %v", want.String(), got, err)
		}
	}
	for _, name := range []string{"", "Anonymous", "level 5"} {
		if got, err := token.ParseLevel(name); err == nil {
			t.Errorf("ParseLevel(%q) = %v", name, got)
		}
	}
}

func TestCapabilitySetsHaveNames(t *testing.T) {
	for set, want := range map[token.CapSet]string{0: "none", 1: "chown", 1<<6 | 1<<7: "setgid,setuid", token.AllCaps: "all", 1 << 63: "63", 1<<41 - 1: "all"} {
		if got := set.String(); got != want {
			t.Errorf("%x prints %q, want %q", uint64(set), got, want)
		}
	}
}

func TestAliveFailsClosed(t *testing.T) {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Skip(err)
	}
	if !token.Alive(pidfd) {
		t.Error("this process is not alive")
	}
	unix.Close(pidfd)
	if token.Alive(pidfd) {
		t.Error("a closed descriptor's process is alive")
	}
}
