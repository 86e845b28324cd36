package socketfile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWayThatOthersCouldChangeIsRefused(t *testing.T) {
	needRoot(t, "directories and links of another user's")
	const other = 61001
	mkdir := func(t *testing.T, path string, mode fs.FileMode, uid int) {
		must(t, os.Mkdir(path, 0o700), os.Chmod(path, mode), os.Chown(path, uid, uid))
	}
	link := func(t *testing.T, target, path string, uid int) {
		must(t, os.Symlink(target, path), os.Lchown(path, uid, uid))
	}
	const sticky = 0o777 | fs.ModeSticky
	for _, test := range []struct {
		name string
		make func(t *testing.T, base string) // the way is base/way
		says string
	}{
		{"a link in root's directory", func(t *testing.T, base string) { link(t, "good", base+"/way", 0) }, ""},
		// Only root can have put it there.
		{"another's link in root's directory", func(t *testing.T, base string) { link(t, "good", base+"/way", other) }, ""},
		{"a link in another's directory", func(t *testing.T, base string) {
			mkdir(t, base+"/theirs", 0o755, other)
			link(t, base+"/good", base+"/theirs/link", other)
			link(t, "theirs/link", base+"/way", 0)
		}, "theirs belongs to uid 61001"},
		{"root's link in another's directory", func(t *testing.T, base string) {
			mkdir(t, base+"/theirs", 0o755, other)
			link(t, base+"/good", base+"/theirs/link", 0)
			link(t, "theirs/link", base+"/way", 0)
		}, "theirs belongs to uid 61001"},
		{"a link through another's directory and back", func(t *testing.T, base string) {
			mkdir(t, base+"/theirs", 0o755, other)
			mkdir(t, base+"/theirs/in", 0o755, 0)
			link(t, "theirs/in/../../good", base+"/way", 0)
		}, "theirs belongs to uid 61001"},
		{"root's link in a directory with the sticky bit", func(t *testing.T, base string) {
			mkdir(t, base+"/all", sticky, 0)
			link(t, base+"/good", base+"/all/link", 0)
			link(t, "all/link", base+"/way", 0)
		}, ""},
		{"another's link in a directory with the sticky bit", func(t *testing.T, base string) {
			mkdir(t, base+"/all", sticky, 0)
			link(t, base+"/good", base+"/all/link", other)
			link(t, "all/link", base+"/way", 0)
		}, "the link %s/all/link belongs to uid 61001"},
		{"root's link in everybody's directory", func(t *testing.T, base string) {
			mkdir(t, base+"/all", 0o777, 0)
			link(t, base+"/good", base+"/all/link", 0)
			link(t, "all/link", base+"/way", 0)
		}, "others can write to %s/all (mode -rwxrwxrwx)"},
		{"another's directory in one with the sticky bit", func(t *testing.T, base string) {
			mkdir(t, base+"/all", sticky, 0)
			mkdir(t, base+"/all/dir", 0o755, other)
			link(t, "all/dir", base+"/way", 0)
		}, "all/dir belongs to uid 61001"},
		{"a file", func(t *testing.T, base string) { must(t, os.WriteFile(base+"/way", nil, 0o600)) }, "way is no directory"},
		{"below a file", func(t *testing.T, base string) {
			must(t, os.WriteFile(base+"/file", nil, 0o600))
			link(t, "file/below", base+"/way", 0)
		}, "file is no directory"},
		{"nothing", func(t *testing.T, base string) {}, "way: no such file"},
		{"a link to nothing", func(t *testing.T, base string) { link(t, "none", base+"/way", 0) }, "none: no such file"},
		{"a link to itself", func(t *testing.T, base string) { link(t, "way", base+"/way", 0) }, "too many levels of symbolic links"},
		{"as many links as the kernel follows", func(t *testing.T, base string) { chain(t, base, mostLinks) }, ""},
		{"a link more than the kernel follows", func(t *testing.T, base string) { chain(t, base, mostLinks+1) }, "too many levels of symbolic links"},
	} {
		t.Run(test.name, func(t *testing.T) {
			base := base(t)
			mkdir(t, base+"/good", 0o755, 0)
			test.make(t, base)
			_, kernelSays := os.Stat(base + "/way/.")
			d, err := Open(base + "/way")
			if test.says == "" {
				must(t, err)
				defer d.Close()
				if d.real != base+"/good" || kernelSays != nil {
					t.Errorf("it leads to %s; the kernel says %v", d.real, kernelSays)
				}
				return
			}
			if err == nil {
				d.Close()
			}
			if says := strings.ReplaceAll(test.says, "%s", base); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("Open: %v; want an error that says %q", err, says)
			}
		})
	}
}

// chain makes way a link by way of n links to good.
func chain(t *testing.T, base string, n int) {
	t.Helper()
	target := "good"
	for i := range n {
		name := fmt.Sprintf("link%d", i)
		if i == n-1 {
			name = "way"
		}
		must(t, os.Symlink(target, filepath.Join(base, name)))
		target = name
	}
}

func TestWayIsTheKernels(t *testing.T) {
	base := base(t)
	must(t, os.MkdirAll(base+"/a/b/c", 0o755), os.MkdirAll(base+"/x/y", 0o755),
		os.Symlink("../a/b", base+"/x/up"), os.Symlink(base+"/x/up/c", base+"/far"), os.Symlink("./y//..///y/", base+"/x/odd"),
		os.Symlink("/", base+"/root"), os.Symlink("../../../../../../../../../../..", base+"/above"))
	for _, way := range []string{"a/b/c", "x/up", "x/up/c", "far", "x/odd", "root/" + base, "above/" + base + "/far", "root"} {
		t.Run(way, func(t *testing.T) {
			want, err := filepath.EvalSymlinks(base + "/" + way)
			must(t, err)
			if d := open(t, base+"/"+way); d.real != want {
				t.Errorf("it leads to %s, want %s", d.real, want)
			} else {
				var here, there unix.Stat_t
				if must(t, unix.Fstat(d.fd, &here), unix.Stat(want, &there)); !same(here, there) {
					t.Error("the descriptor is of another directory")
				}
			}
		})
	}
	t.Run("relative", func(t *testing.T) {
		t.Chdir(base + "/x")
		if d := open(t, "up"); d.real != base+"/a/b" {
			t.Errorf("it leads to %s", d.real)
		}
	})
}

func TestMissingDirectoriesAreMade(t *testing.T) {
	for _, umask := range []int{0, 0o077, 0o777} {
		t.Run(fmt.Sprintf("umask %04o", umask), func(t *testing.T) {
			base := base(t)
			must(t, os.Symlink("none", base+"/dangling"))
			old := syscall.Umask(umask)
			defer syscall.Umask(old)
			for _, test := range []struct {
				way  string
				most int
				says string
			}{
				{"one/two", 2, ""},
				{"one/two/three", 1, ""},
				{"1/2/3", 2, "1: no such file"},
				{"1/2/3", 3, ""},
				{"dangling/x", 2, "none: no such file"},
			} {
				d, err := Make(filepath.Join(base, test.way), Missing{Most: test.most, Mode: 0o711, Above: 0o755})
				if err == nil {
					d.Close()
				}
				if test.says != "" {
					if err == nil || !strings.Contains(err.Error(), test.says) {
						t.Errorf("%s: %v; want an error that says %q", test.way, err, test.says)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", test.way, err)
				}
			}
			for way, want := range map[string]fs.FileMode{"one": 0o755, "one/two": 0o711, "one/two/three": 0o711, "1": 0o755, "1/2": 0o755, "1/2/3": 0o711} {
				if info, err := os.Lstat(filepath.Join(base, way)); err != nil || info.Mode() != fs.ModeDir|want {
					t.Errorf("%s: %v, %v, want mode %v", way, info, err, want)
				}
			}
			if left, err := filepath.Glob(base + "/none*"); len(left) > 0 || err != nil {
				t.Errorf("%v was made through a link, %v", left, err)
			}
		})
	}
}
