package smb

import (
	"os"
	"runtime"
	"testing"

	"github.com/guise-project/guise/internal/leftover"
)

// role says what the test binary is to do in place of running tests.
const role = "GUISE_SMB_TEST_ROLE"

func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if os.Getenv(role) == "serve" {
		serveForSamba()
	}
	os.Exit(leftover.Main(m))
}
