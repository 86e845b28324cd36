package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"syscall"

	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
)

// byProgram is root's service starting cat(1) for each request, which reads the file as its owner: with ids that it is started with, or by
// a program that changes to its user.
func byProgram(name string, attr *syscall.SysProcAttr, changing ...string) way {
	command := append(changing, "cat")
	return way{name: name, needs: command[:1], start: func(s *stage) (*running, error) {
		read := func(file string) error {
			cmd := exec.Command(command[0], append(slices.Clone(command[1:]), file)...)
			cmd.SysProcAttr = attr
			answer, err := cmd.Output()
			if err == nil && !bytes.Equal(answer, contents) {
				err = fmt.Errorf("the answer was %q", answer)
			}
			return err
		}
		once := func() error { return read(fileOf(s.dir)) }
		if err := once(); err != nil { // a sudoers(5) that does not let root, or the like
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		secret := func() (bool, error) { return read(secretOf(s.dir)) == nil, nil }
		return &running{once: repeat(once), readsSecret: secret, stop: func() {}}, nil
	}}
}

func repeat(once func() error) ratio.Side {
	return func(n int) {
		for range n {
			if err := once(); err != nil {
				role.Fatal(err)
			}
		}
	}
}
