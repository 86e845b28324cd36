package announce

import (
	"os"
	"runtime"
	"testing"

	"github.com/guise-project/guise/internal/leftover"
)

// role, in the environment, makes the test binary play another process in place of running tests.
const role = "GUISE_TEST_ROLE"

// Tests change threads for good and let them end with their goroutines. The main thread can't, so none of them gets it.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if play, ok := roles[os.Getenv(role)]; ok {
		play()
		os.Exit(0)
	}
	os.Exit(leftover.Main(m))
}
