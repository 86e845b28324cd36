package main

import (
	"fmt"
	"os/exec"

	"github.com/guise-project/guise/bench/internal/ratio"
)

// A way is one of getting a request done.
type way struct {
	name string
	// needs are programs without which it can't be measured.
	needs []string
	// start starts all that it takes.
	start func(s *stage) (*running, error)
}

// running is a way that can be measured.
type running struct {
	// once does requests each of which is all there is: on a connection of its own, or by a program of its own.
	once ratio.Side
	// open does requests on a connection that stays open, or is nil.
	open ratio.Side
	// readsSecret asks for the file that only root can read, and reports whether it was answered: not if the server acts as its client. It
	// may be nil.
	readsSecret func() (bool, error)
	stop        func()
}

// missing says why a way can't be measured here, or is nil.
func (w way) missing() error {
	for _, program := range w.needs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s: there is no %s here; scripts/bench --install installs what is missing on Debian", w.name, program)
		}
	}
	return nil
}
