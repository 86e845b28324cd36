package hostile_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/hostile"
)

func TestCloseOfASocketThatLingersEndsWithItsRelease(t *testing.T) {
	fd, release, err := hostile.Lingering()
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		unix.Close(fd)
	}()

	release()
	<-closed
}
