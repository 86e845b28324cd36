package hostile_test

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/hostile"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/internal/testdir"
)

func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) { os.Exit(leftover.Main(m)) }

// Who needs an answer that does not come hangs until the file system is closed. Everything else works.
func TestFUSEAnswersAllButWhatItShallNot(t *testing.T) {
	const everything = `stat "$0/file" "$0/directory" && test -x "$0/file" && ls "$0/directory" && test "$(cat "$0/file" | wc -c)" = 4096 && printf x >"$0/file" && ` +
		`sh -c 'exec 3<"$0/directory/file" && exec 3<&-' "$0" && df "$0"`
	for _, c := range []struct {
		name  string
		never hostile.Opcode
		does  string
	}{
		{"everything is answered", 0, everything},
		{"lookup", hostile.Lookup, `stat "$0/file"`},
		{"getattr", hostile.Getattr, `stat "$0"`},
		{"open", hostile.Open, `cat "$0/file"`},
		{"read", hostile.Read, `cat "$0/file"`},
		{"opendir", hostile.Opendir, `ls "$0"`},
		{"access", hostile.Access, `cd "$0"`},
		{"flush", hostile.Flush, `exec 3<"$0/file" && exec 3<&-`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := testdir.Open(t, 0o755)
			f, err := hostile.MountFUSE(dir, c.never)
			if err != nil {
				t.Skipf("a hostile file system can't be mounted here: %v", err)
			}
			cmd := exec.Command("/bin/sh", "-c", c.does, dir)
			var said strings.Builder
			cmd.Dir, cmd.Stderr = "/", &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			const patience = time.Minute
			begun := time.Now()
			for over := false; !over; time.Sleep(5 * time.Millisecond) {
				switch {
				case f.Stuck(c.never) > 0:
					over = true
				case len(ended) > 0:
					err := <-ended
					if over = true; err != nil || c.never != 0 {
						t.Errorf("%s ended with %v, and nobody hangs: %s", c.does, err, said.String())
					}
					ended <- err
				case time.Since(begun) > patience:
					t.Errorf("%s neither ends nor asks for what gets no answer", c.does)
					over = true
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			select {
			case <-ended:
			case <-time.After(patience):
				t.Errorf("%s hangs though the file system is closed", c.does)
				cmd.Process.Kill()
			}
			if mounted(t, dir) {
				t.Errorf("%s is mounted still", dir)
			}
		})
	}
}

func mounted(t *testing.T, dir string) bool {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	const fuseSuperMagic = 0x65735546
	return fs.Type == fuseSuperMagic
}
