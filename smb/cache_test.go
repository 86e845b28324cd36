package smb

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/token"
)

// ccacheOf makes a cache of version 4.
func ccacheOf(client string, entries ...cacheEntry) []byte {
	b := []byte{5, 4, 0, 12, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0}
	b = appendPrincipal(b, client)
	for _, e := range entries {
		b = appendPrincipal(appendPrincipal(b, client), e.server)
		b = binary.BigEndian.AppendUint16(b, uint16(e.key.KeyType))
		b = appendData(b, e.key.KeyValue)
		for _, when := range []time.Time{e.start, e.start, e.end, e.end} {
			b = binary.BigEndian.AppendUint32(b, uint32(when.Unix()))
		}
		b = append(b, 0, 0, 0, 0, 0)                 // flags
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)        // addresses, authorisation data
		b = appendData(appendData(b, e.ticket), nil) // second ticket
	}
	return b
}

type cacheEntry struct {
	server     string
	key        types.EncryptionKey
	start, end time.Time
	ticket     []byte
}

func appendData(b, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
}

func appendPrincipal(b []byte, s string) []byte {
	name, realm, _ := strings.Cut(s, "@")
	parts := strings.Split(name, "/")
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, uint32(len(parts)))
	b = appendData(b, []byte(realm))
	for _, part := range parts {
		b = appendData(b, []byte(part))
	}
	return b
}

func aKey() types.EncryptionKey {
	return types.EncryptionKey{KeyType: 18, KeyValue: bytes.Repeat([]byte{7}, 32)}
}

func aTicket(t *testing.T, server string) []byte {
	t.Helper()
	name, realm, _ := strings.Cut(server, "@")
	ticket := messages.Ticket{TktVNO: 5, Realm: realm, SName: types.NewPrincipalName(nametype.KRB_NT_SRV_INST, name), EncPart: types.EncryptedData{EType: 18, KVNO: 1, Cipher: make([]byte, 60)}}
	b, err := ticket.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func entry(t *testing.T, server string, end time.Duration) cacheEntry {
	return cacheEntry{server: server, key: aKey(), start: time.Now().Add(-time.Hour), end: time.Now().Add(end), ticket: aTicket(t, server)}
}

func TestReadingCaches(t *testing.T) {
	now := time.Now()
	data := ccacheOf("alice@A.TEST",
		entry(t, "krbtgt/A.TEST@A.TEST", -time.Minute),
		cacheEntry{server: "krb5_ccache_conf_data/pa_type@X-CACHECONF:", ticket: []byte("2")},
		entry(t, "cifs/host@A.TEST", -time.Minute),
		entry(t, "cifs/host@A.TEST", time.Hour),
		entry(t, "cifs/host@B.TEST", 2*time.Hour))
	c, err := parseCache(data)
	if err != nil {
		t.Fatal(err)
	}
	if c.client.String() != "alice@A.TEST" || len(c.tickets) != 4 {
		t.Errorf("%v, %d tickets", c.client, len(c.tickets))
	}
	for _, test := range []struct {
		server, realm string
		found         string
		expired       bool
	}{
		{"cifs/host", "A.TEST", "A.TEST", false}, {"cifs/host", "", "B.TEST", false}, {"cifs/host", "C.TEST", "", false}, {"cifs/other", "", "", false},
		{"krbtgt/A.TEST", "A.TEST", "A.TEST", true},
	} {
		got, ok := c.find(strings.Split(test.server, "/"), test.realm, now)
		if ok != (test.found != "") || got.server.realm != test.found || ok && got.expired(now) != test.expired {
			t.Errorf("%+v: %v, %v", test, got.server, ok)
		}
	}
	for n := range len(data) {
		if _, err := parseCache(data[:n]); err == nil && n > 60 && n < len(data)-1 {
			// It may end after an entry, and so be whole.
			if c, _ := parseCache(data[:n]); len(c.tickets) == 4 {
				t.Errorf("%d of %d bytes are taken for the whole", n, len(data))
			}
		}
	}
}

// A length in the file is not taken at its word.
func TestHostileCaches(t *testing.T) {
	data := ccacheOf("alice@A.TEST", entry(t, "krbtgt/A.TEST@A.TEST", time.Hour))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range len(data) - 4 {
		for _, v := range []uint32{0xffffffff, 0x7fffffff, 0x10000000} {
			bad := bytes.Clone(data)
			binary.BigEndian.PutUint32(bad[i:], v)
			_, _ = parseCache(bad)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
}

func FuzzCache(f *testing.F) {
	f.Add([]byte{5, 4, 0, 0})
	f.Add(ccacheOf("alice@A.TEST", cacheEntry{server: "cifs/host@A.TEST", key: aKey(), ticket: []byte{0x61, 3, 0x30, 1, 0}}))
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = parseCache(data) })
}

// TestPrincipalInAnErrorIsOneWord: whoever writes the cache must not write the log.
func TestPrincipalInAnErrorIsOneWord(t *testing.T) {
	for realm, want := range map[string]string{
		"GUISE.TEST": "alice@GUISE.TEST",
		"A\x1b[2J\nsshd: Accepted password for root@A": `"alice@A\x1b[2J\nsshd: Accepted password for root@A"`,
		"\u202eA": `"alice@\u202eA"`,
	} {
		p := principal{realm: realm, name: types.NewPrincipalName(1, "alice")}
		if got := p.String(); got != want {
			t.Errorf("a principal of realm %q prints as %s, want %s", realm, got, want)
		}
	}
	long := principal{realm: strings.Repeat("A", 5000), name: types.NewPrincipalName(1, "alice")}
	if got := long.String(); len(got) > 300 {
		t.Errorf("a long one prints as %d bytes", len(got))
	}
}

func TestCacheNames(t *testing.T) {
	user := caller{uid: 12, euid: 34}
	for name, want := range map[string]string{
		defaultCache: "FILE:/tmp/krb5cc_12", "DIR:/run/user/%{euid}/krb5cc": "DIR:/run/user/34/krb5cc", "%{USERID}%{null}": "12", "plain": "plain",
	} {
		if got, err := user.expand(name); got != want || err != nil {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"FILE:%{uid", "FILE:%{LIBDIR}/x", "FILE:/tmp/%{username}"} {
		if got, err := (caller{uid: 3999999999, euid: 3999999999}).expand(name); !errors.Is(err, ErrConfig) {
			t.Errorf("%s is %q, %v; want an error", name, got, err)
		}
	}
	for name, want := range map[string]string{"FILE:/a": "/a", "/a:b": "/a:b", "DIR::/d/tktX": "/d/tktX", "WRFILE:/a": "/a"} {
		if got, directory, err := cacheFile(name); got != want || directory || err != nil {
			t.Errorf("%s is in %q, %v, %v; want %q", name, got, directory, err, want)
		}
	}
	for _, kind := range []string{"KEYRING:persistent:1", "KCM:", "MEMORY:x", "API:x", "FILE:relative", "relative", "FILE:"} {
		_, _, err := cacheFile(kind)
		if name, _, typed := strings.Cut(kind, ":"); !errors.Is(err, ErrNoTicket) || typed && name != "FILE" && !(strings.Contains(err.Error(), name) && strings.Contains(err.Error(), "kinit -c FILE:")) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// The environment is the process's, and not for clients.
func TestEnvironmentIsNotForScopes(t *testing.T) {
	t.Setenv(cacheVariable, "FILE:/of/the/process")
	t.Setenv(confVariable, "/of/the/process")
	t.Setenv("TMPDIR", "/of/the/process")
	conf := &krb5Conf{}
	worn, err := token.FromIDs(61001, 61001, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := scopeCaller(worn).cacheName(conf); got != "FILE:/tmp/krb5cc_61001" || err != nil {
		t.Errorf("a client's cache is %s, %v", got, err)
	}
	if got, err := scopeCaller(worn).expand("%{TEMP}"); got != "/tmp" || err != nil {
		t.Errorf("a client's TEMP is %s, %v", got, err)
	}
	if got := confFiles(true); len(got) != 1 || got[0] != defaultConf {
		t.Errorf("a client's configuration is %v", got)
	}
	if got, err := processCaller().cacheName(conf); got != "FILE:/of/the/process" || err != nil {
		t.Errorf("the process's cache is %s, %v", got, err)
	}
	if got := confFiles(false); got[0] != "/of/the/process" {
		t.Errorf("the process's configuration is %v", got)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it acts as others")
	}
}

func TestFilesThatAreNoCache(t *testing.T) {
	dir := t.TempDir()
	me := []uint32{uint32(os.Geteuid())}
	good := filepath.Join(dir, "good")
	write(t, good, "cache", 0o600)
	if got, err := readOwned(good, 100, me); string(got) != "cache" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Symlink(good, at("link")), unix.Mkfifo(at("fifo"), 0o600), os.Mkdir(at("dir"), 0o700), unix.Mkfifo(at("fifo2"), 0o600)); err != nil {
		t.Fatal(err)
	}
	write(t, at("large"), strings.Repeat("x", 101), 0o600)
	write(t, at("group"), "cache", 0o620)
	write(t, at("others"), "cache", 0o602)
	write(t, at("sparse"), "", 0o600)
	if err := os.Truncate(at("sparse"), 1<<42); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"link": "symbolic link", "fifo": "regular", "dir": "regular", "large": "too many", "sparse": "too many", "group": "written by others", "others": "written by others", "none": "no such file",
	} {
		leftover.ByThis(t, func() {
			if got, err := readOwned(at(name), 100, me); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q, %v; want an error that says %q", name, got, err, want)
			}
		})
	}
	if got, err := readOwned(good, 100, []uint32{me[0] + 1}); err == nil || !strings.Contains(err.Error(), "belongs to uid") {
		t.Errorf("another's: %q, %v", got, err)
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(name, []byte(text), mode), os.Chmod(name, mode)); err != nil {
		t.Fatal(err)
	}
}

func TestDirectoriesOfCaches(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "caches")
	if err := os.MkdirAll(filepath.Join(dir, "tktDir"), 0o700); err != nil {
		t.Fatal(err)
	}
	me := processCaller()
	conf := &krb5Conf{cacheName: "DIR:" + dir}
	data := ccacheOf("alice@A.TEST", entry(t, "krbtgt/A.TEST@A.TEST", time.Hour))
	t.Setenv(cacheVariable, "")
	if _, err := me.cache(t.Context(), conf); !errors.Is(err, ErrNoTicket) {
		t.Error(err)
	}
	write(t, filepath.Join(dir, "tkt"), string(data), 0o600)
	if c, err := me.cache(t.Context(), conf); err != nil || c.client.String() != "alice@A.TEST" {
		t.Error(err)
	}
	write(t, filepath.Join(dir, "tktBob"), string(ccacheOf("bob@A.TEST")), 0o600)
	write(t, filepath.Join(dir, "primary"), "tktBob\n", 0o600)
	if c, err := me.cache(t.Context(), conf); err != nil || c.client.String() != "bob@A.TEST" {
		t.Error(err)
	}
	write(t, filepath.Join(above, "elsewhere"), string(data), 0o600)
	for _, bad := range []string{"../elsewhere", "tktDir/../../elsewhere", "../tkt", "tkt/../../x", "", "other\n"} {
		write(t, filepath.Join(dir, "primary"), bad, 0o600)
		if _, err := me.cache(t.Context(), conf); !errors.Is(err, ErrNoTicket) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What a client's cache is read with are the client's rights, and what it leads to has to be the client's.
func TestCachesAreReadAsTheClient(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if d != "/tmp" {
			_ = os.Chmod(d, 0o755)
		}
	}
	conf := &krb5Conf{cacheName: "FILE:" + dir + "/cache_%{uid}"}
	worn, err := token.FromIDs(61001, 61001, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := dir + "/cache_61001"
	data := string(ccacheOf("alice@A.TEST", entry(t, "krbtgt/A.TEST@A.TEST", time.Hour)))
	write(t, path, data, 0o644)
	for _, test := range []struct {
		name string
		uid  int
		mode os.FileMode
		want string
	}{
		{"root's", 0, 0o644, "belongs to uid 0"},
		{"another's", 61002, 0o644, "belongs to uid 61002"},
		{"root's that only root can read", 0, 0o600, "permission denied"},
		{"the client's that it can't read", 61001, 0o200, "permission denied"},
		{"the client's", 61001, 0o600, ""},
	} {
		if err := errors.Join(os.Chown(path, test.uid, test.uid), os.Chmod(path, test.mode)); err != nil {
			t.Fatal(err)
		}
		c, err := scopeCaller(worn).cache(t.Context(), conf)
		if (err == nil) != (test.want == "") || err != nil && !(strings.Contains(err.Error(), test.want) && errors.Is(err, ErrNoTicket)) {
			t.Errorf("%s: %v, %v; want %q", test.name, c, err, test.want)
		}
	}
}

// blockingFile returns a file whose opening lasts until the test's end: it is on a file system that nobody serves.
func blockingFile(t *testing.T) (path string, unblock func()) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no FUSE: ", err)
	}
	dir := t.TempDir()
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if d != "/tmp" {
			_ = os.Chmod(d, 0o755)
		}
	}
	if err := unix.Mount("blocking", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", fd)); err != nil {
		unix.Close(fd)
		t.Skip("no FUSE: ", err)
	}
	done := false
	unblock = func() {
		if !done {
			done = true
			unix.Close(fd)
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(unblock)
	return filepath.Join(dir, "cache"), unblock
}

func TestClientWhoBlocksCostsNoMoreThanTheContext(t *testing.T) {
	needRoot(t)
	path, unblock := blockingFile(t)
	conf := &krb5Conf{cacheName: "FILE:" + path}
	worn, err := token.FromIDs(61001, 61001, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := token.FromIDs(61002, 61002, nil)
	if err != nil {
		t.Fatal(err)
	}
	threads := func() int {
		tasks, _ := os.ReadDir("/proc/self/task")
		return len(tasks)
	}
	before := threads()
	for range 3 * slotsPerUser {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		begun := time.Now()
		_, err := scopeCaller(worn).cache(ctx, conf)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		cancel()
	}
	if now := threads(); now > before+slotsPerUser+6 {
		t.Errorf("%d threads became %d", before, now)
	}
	// Others don't wait for them.
	dir := t.TempDir()
	if _, err := scopeCaller(other).cache(within(t, 10*time.Second), &krb5Conf{cacheName: "FILE:" + dir + "/none"}); !errors.Is(err, ErrNoTicket) {
		t.Error(err)
	}
	unblock()
	until(t, func() error {
		readers.mu.Lock()
		defer readers.mu.Unlock()
		if readers.all != 0 || len(readers.users) != 0 {
			return fmt.Errorf("%d readers are left", readers.all)
		}
		return nil
	})
}
