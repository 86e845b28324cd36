package guise_test

import (
	"os"
	"runtime"
	"testing"

	"github.com/guise-project/guise/internal/leftover"
)

// Threads whose ids a test changes end with their goroutines, but for the first, which the runtime never ends: the main
// goroutine keeps it.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) { os.Exit(leftover.Main(m)) }
