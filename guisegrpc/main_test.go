package guisegrpc_test

import (
	"os"
	"testing"

	"github.com/guise-project/guise/internal/leftover"
)

func TestMain(m *testing.M) {
	if pipe := os.Getenv(changing); pipe != "" {
		changeWhenTold(pipe)
		return
	}
	os.Exit(leftover.Main(m))
}
