package guise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/testdir"
)

// swapping, in the environment, is two paths that the role exchanges as fast as it can; coming is one that it makes a link, to the other
// path, and takes away again.
const (
	swapping = "GUISE_TEST_SWAPPING"
	coming   = "GUISE_TEST_COMING"
)

var _ = addRole("swapper", func() {
	done := make(chan struct{})
	go func() {
		os.Stdin.Read(make([]byte, 1))
		close(done)
	}()
	first, second, exchange := strings.Cut(os.Getenv(swapping), ":")
	link, target, _ := strings.Cut(os.Getenv(coming), ":")
	for begun := false; ; {
		select {
		case <-done:
			return
		default:
		}
		if exchange {
			must(unix.Renameat2(unix.AT_FDCWD, first, unix.AT_FDCWD, second, unix.RENAME_EXCHANGE))
		} else {
			os.Symlink(target, link) // the other side may have made something there
			unix.Unlink(link)
		}
		if !begun {
			begun = true
			fmt.Println("begun")
		}
	}
})

// contents describes all that is in dir, and dir itself.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%s %v uid %d gid %d inode %d\n", path, info.Mode(), stat.Uid, stat.Gid, stat.Ino)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestAttackOfWhoOwnsADirectoryOnTheWay: the user 61001 changes, as fast as it can, what root's server passes on the way to its socket.
func TestAttackOfWhoOwnsADirectoryOnTheWay(t *testing.T) {
	needRoot(t, "root is whom the attack is for")
	const starts = 200
	link := func(target, path string) {
		must(os.Symlink(target, path))
		must(os.Lchown(path, 61001, 61001))
	}
	mkdir := func(path string, mode fs.FileMode, uid int) {
		must(os.Mkdir(path, 0o700))
		must(os.Chmod(path, mode))
		must(os.Chown(path, uid, uid))
	}
	type attack struct {
		name    string
		prepare func(base string) (env string)
		listen  func(base string) (*Listener, error)
		// good is where a socket may be, if anywhere: below base, and "" if there may be none.
		good string
	}
	atPath := func(base string) (*Listener, error) { return Listen(base+"/theirs/way/pipe", nil) }
	byName := func(dir string) func(string) (*Listener, error) {
		return func(base string) (*Listener, error) {
			must(os.Setenv("GUISE_DIR", base+dir))
			return Listen("pipe", nil)
		}
	}
	byNetwork := func(dir string) func(string) (*Listener, error) {
		return func(base string) (*Listener, error) {
			return Listen(base+"/good/pipe", &ListenConfig{Network: &Network{Dir: base + dir, Name: "pipe"}})
		}
	}
	swaps := func(base string) string { return swapping + "=" + base + "/theirs/way:" + base + "/theirs/other" }
	attacks := []attack{
		{"a link, to where the pipe is a link to root's file", func(base string) string {
			link(base+"/good", base+"/theirs/way")
			mkdir(base+"/theirs/bad", 0o755, 61001)
			link(base+"/outside/pipe", base+"/theirs/bad/pipe")
			link(base+"/theirs/bad", base+"/theirs/other")
			return swaps(base)
		}, atPath, ""},
		{"a link, to where the pipe is root's file", func(base string) string {
			link(base+"/good", base+"/theirs/way")
			mkdir(base+"/theirs/bad", 0o755, 61001)
			must(os.Link(base+"/outside/pipe", base+"/theirs/bad/pipe"))
			must(os.Link(base+"/outside/pipe", base+"/theirs/bad/pipe~lock"))
			link(base+"/theirs/bad", base+"/theirs/other")
			return swaps(base)
		}, atPath, ""},
		{"a link, to another directory of root's", func(base string) string {
			link(base+"/good", base+"/theirs/way")
			link(base+"/outside", base+"/theirs/other")
			return swaps(base)
		}, atPath, ""},
		{"a directory for a link", func(base string) string {
			mkdir(base+"/theirs/way", 0o755, 0)
			link(base+"/good", base+"/theirs/other")
			return swaps(base)
		}, atPath, ""},
		{"the directory of the pipe", func(base string) string {
			mkdir(base+"/theirs/way", 0o755, 0)
			mkdir(base+"/theirs/other", 0o755, 0)
			return swaps(base)
		}, atPath, ""},
		{"a link in a directory with a sticky bit", func(base string) string {
			link(base+"/good", base+"/sticky/way")
			link(base+"/outside", base+"/sticky/other")
			return swapping + "=" + base + "/sticky/way:" + base + "/sticky/other"
		}, func(base string) (*Listener, error) { return Listen(base+"/sticky/way/pipe", nil) }, ""},
		{"a directory of names that is not there yet", func(base string) string {
			return coming + "=" + base + "/theirs/guise:" + base + "/outside"
		}, byName("/theirs/guise/new"), ""},
		{"a directory of names that is not there yet, in one with a sticky bit", func(base string) string {
			return coming + "=" + base + "/sticky/guise:" + base + "/outside"
		}, byName("/sticky/guise/new"), "sticky/guise"},
		{"Samba's directory that is not there yet", func(base string) string {
			return coming + "=" + base + "/theirs/guise:" + base + "/outside"
		}, byNetwork("/theirs/guise/new"), ""},
		{"Samba's directory that is not there yet, in one with a sticky bit", func(base string) string {
			return coming + "=" + base + "/sticky/guise:" + base + "/outside"
		}, byNetwork("/sticky/guise/new"), "sticky/guise"},
	}
	for _, attack := range attacks {
		t.Run(attack.name, func(t *testing.T) {
			t.Setenv("GUISE_DIR", "")
			base := testdir.Open(t, 0o755)
			mkdir(base+"/good", 0o755, 0)
			mkdir(base+"/outside", 0o755, 0)
			mkdir(base+"/theirs", 0o755, 61001)
			mkdir(base+"/sticky", 0o777|fs.ModeSticky, 0)
			for _, name := range []string{"pipe", "pipe~lock"} {
				must(os.WriteFile(base+"/outside/"+name, nil, 0o600))
			}
			env := attack.prepare(base)
			outside, good := contents(t, base+"/outside"), contents(t, base+"/good")
			swapper := startRaw(t, "swapper", asUser(61001, 61001), []string{env})
			swapper.out.line()
			listening := 0
			for start := range starts {
				l, err := attack.listen(base)
				if err == nil {
					listening++
					if attack.good == "" {
						t.Errorf("start %d: it listens, where 61001 has a say", start+1)
					} else if info, err := os.Lstat(filepath.Join(base, attack.good)); err != nil || !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != 0 {
						t.Errorf("start %d: it listens in what is no directory of root's (%v)", start+1, err)
					}
					if err := l.Close(); err != nil {
						t.Errorf("start %d: closing: %v", start+1, err)
					}
				}
				if attack.good != "" {
					if info, err := os.Lstat(filepath.Join(base, attack.good)); err == nil && info.IsDir() {
						must(os.RemoveAll(filepath.Join(base, attack.good)))
					}
				}
				if now := contents(t, base+"/outside"); now != outside {
					t.Errorf("start %d: what the way must not lead to was\n%sand is\n%s", start+1, outside, now)
				}
				if now := contents(t, base+"/good"); now != good {
					t.Errorf("start %d: the other directory was\n%sand is\n%s", start+1, good, now)
				}
				if t.Failed() {
					break
				}
			}
			swapper.end()
			t.Logf("%d of %d starts listened", listening, starts)
			left, err := filepath.Glob(base + "/theirs/*/pipe*")
			for _, path := range left {
				if info, statErr := os.Lstat(path); statErr == nil && info.Mode().Type() == fs.ModeSocket {
					err = errors.Join(err, fmt.Errorf("a socket is left at %s", path))
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}
