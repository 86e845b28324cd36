package semantics

import (
	"os"
	"runtime"
	"testing"

	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/leftover"
)

func TestMain(m *testing.M) {
	actor.PlayIfAsked()
	os.Exit(leftover.Main(m))
}

// Threads that actors change end with them, but for the first, which the runtime never ends: the main goroutine keeps it.
func init() { runtime.LockOSThread() }
