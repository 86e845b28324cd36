package guisehttp_test

import (
	"os"
	"testing"

	"github.com/guise-project/guise/internal/leftover"
)

func TestMain(m *testing.M) { os.Exit(leftover.Main(m)) }
