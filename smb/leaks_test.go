package smb

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// untilNoPumps waits until no goroutine of a connection is left.
func untilNoPumps(t *testing.T) {
	t.Helper()
	until(t, func() error {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for stack := range strings.SplitSeq(string(stacks), "\n\n") {
			if strings.Contains(stack, "smb.(*pump)") || strings.Contains(stack, "go-smb2") {
				return fmt.Errorf("a goroutine is left:\n%s", stack)
			}
		}
		return nil
	})
}
