package smb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/secureexec"
	"github.com/guise-project/guise/token"
)

const (
	longestCache  = 1 << 20
	cacheVariable = "KRB5CCNAME"
	defaultCache  = "FILE:/tmp/krb5cc_%{uid}"
)

// caller is who calls: the client of a scope, or the process.
type caller struct {
	worn *token.Token // nil: the process
	uid  uint32       // real
	euid uint32
}

func processCaller() caller {
	return caller{uid: uint32(os.Getuid()), euid: uint32(os.Geteuid())}
}

func scopeCaller(t *token.Token) caller { return caller{worn: t, uid: t.UID(), euid: t.UID()} }

func (c caller) String() string {
	s := fmt.Sprintf("uid %d", c.uid)
	if c.worn != nil {
		return "this scope's client, " + s
	}
	return "this process, " + s
}

// owners are those whose cache it may be. Another's would make the call go out as that one.
func (c caller) owners() []uint32 { return []uint32{c.uid, c.euid} }

// cacheName returns the name of the caller's credential cache, with its type.
func (c caller) cacheName(conf *krb5Conf) (string, error) {
	if c.worn == nil && !secureexec.Is() {
		if name := os.Getenv(cacheVariable); name != "" {
			return name, nil
		}
	}
	name := conf.cacheName
	if name == "" {
		name = defaultCache
	}
	return c.expand(name)
}

// expand replaces %{uid} and the like, for the caller.
func (c caller) expand(name string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(name, "%{")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		variable, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", fmt.Errorf("%w: default_ccache_name has a brace that is not closed: %q", ErrConfig, name)
		}
		switch variable {
		case "uid", "USERID":
			out.WriteString(strconv.FormatUint(uint64(c.uid), 10))
		case "euid":
			out.WriteString(strconv.FormatUint(uint64(c.euid), 10))
		case "username":
			u, err := user.LookupId(strconv.FormatUint(uint64(c.euid), 10))
			if err != nil {
				return "", fmt.Errorf("%w: default_ccache_name has %%{username} in it, and uid %d has no name: %w", ErrConfig, c.euid, err)
			}
			if u.Username == "" || strings.ContainsAny(u.Username, "/\x00") {
				return "", fmt.Errorf("%w: default_ccache_name has %%{username} in it, and %q can't be in a path", ErrConfig, u.Username)
			}
			out.WriteString(u.Username)
		case "TEMP":
			dir := "/tmp"
			if v := os.Getenv("TMPDIR"); v != "" && c.worn == nil && !secureexec.Is() {
				dir = v
			}
			out.WriteString(dir)
		case "null":
		default:
			return "", fmt.Errorf("%w: default_ccache_name has %%{%s} in it, which is not understood", ErrConfig, variable)
		}
		name = after
	}
}

// cacheFile returns the file that a cache of the given name is in, or the directory.
func cacheFile(name string) (path string, directory bool, err error) {
	kind, rest, typed := strings.Cut(name, ":")
	if !typed || strings.HasPrefix(name, "/") {
		kind, rest = "FILE", name
	}
	switch kind {
	case "FILE", "WRFILE":
		path = rest
	case "DIR":
		if strings.HasPrefix(rest, ":") { // one cache of a directory's
			path = rest[1:]
		} else {
			path, directory = rest, true
		}
	default:
		return "", false, fmt.Errorf("%w: the credential cache is %s, and caches of type %s can't be read here; use a file: kinit -c FILE:…, or default_ccache_name = FILE:/tmp/krb5cc_%%{uid} in krb5.conf", ErrNoTicket, name, kind)
	}
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return "", false, fmt.Errorf("%w: the credential cache %q is not an absolute path", ErrNoTicket, name)
	}
	return path, directory, nil
}

// cache reads the caller's credential cache with the caller's rights, and no longer than ctx lasts. A client of a scope's may make
// the reading last: it goes on then, without anyone waiting for it.
func (c caller) cache(ctx context.Context, conf *krb5Conf) (*ccache, error) {
	if err := readers.take(ctx, c.uid); err != nil {
		return nil, err
	}
	type result struct {
		cache *ccache
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer readers.giveBack(c.uid)
		cache, err := c.readCache(conf)
		done <- result{cache, err}
	}()
	select {
	case r := <-done:
		return r.cache, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("reading the credential cache of %v: %w", c, ctx.Err())
	}
}

func (c caller) readCache(conf *krb5Conf) (*ccache, error) {
	name, err := c.cacheName(conf)
	if err != nil {
		return nil, err
	}
	path, directory, err := cacheFile(name)
	if err != nil {
		return nil, err
	}
	var data []byte
	read := func() error {
		if directory {
			if path, err = primaryOf(path, c.owners()); err != nil {
				return err
			}
		}
		data, err = readOwned(path, longestCache, c.owners())
		return err
	}
	if c.worn == nil {
		err = read()
	} else {
		err = guise.RunAs(c.worn, func(*guise.Scope) error { return read() })
	}
	defer func() { clear(data) }()
	if err != nil {
		hint := "log in with kinit -c " + name
		if errors.Is(err, unix.ENOENT) {
			hint = "log in with kinit"
			if c.worn != nil {
				hint = "that user has to log in with kinit"
			}
		}
		return nil, fmt.Errorf("%w: the credential cache %s of %v: %w; %s", ErrNoTicket, name, c, err, hint)
	}
	cache, err := parseCache(data)
	if err != nil {
		return nil, fmt.Errorf("%w: the credential cache %s of %v: %w; log in with kinit again", ErrNoTicket, name, c, err)
	}
	return cache, nil
}

// primaryOf returns the file of the cache in use in a directory of caches.
func primaryOf(dir string, owners []uint32) (string, error) {
	line, err := readOwned(filepath.Join(dir, "primary"), 4096, owners)
	if errors.Is(err, unix.ENOENT) {
		return filepath.Join(dir, "tkt"), nil
	}
	if err != nil {
		return "", err
	}
	name := strings.TrimSuffix(string(line), "\n")
	if !strings.HasPrefix(name, "tkt") || strings.ContainsAny(name, "/\x00\n") {
		return "", fmt.Errorf("%s/primary does not name a cache", dir)
	}
	return filepath.Join(dir, name), nil
}

// readOwned reads a file that is one of the owners', and nobody else may write. All checks are on what was opened.
func readOwned(path string, most int, owners []uint32) ([]byte, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		return err
	})
	if err == unix.ELOOP {
		return nil, fmt.Errorf("%s is a symbolic link, which could lead to another's", path)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%s is not a regular file", path)
	case !slices.Contains(owners, st.Uid):
		return nil, fmt.Errorf("%s belongs to uid %d", path, st.Uid)
	case st.Mode&0o022 != 0:
		return nil, fmt.Errorf("%s can be written by others: its mode is %#o", path, st.Mode&0o7777)
	case st.Size > int64(most):
		return nil, fmt.Errorf("%s has %d bytes, which is too many", path, st.Size)
	}
	data := make([]byte, 0, st.Size+1)
	for {
		if len(data) == cap(data) {
			data = slices.Grow(data, 4096)
		}
		var n int
		err := retry(func() (err error) {
			n, err = unix.Read(fd, data[len(data):cap(data)])
			return err
		})
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return data, nil
		}
		if data = data[:len(data)+n]; len(data) > most {
			return nil, fmt.Errorf("%s has more than %d bytes, which is too many", path, most)
		}
	}
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
