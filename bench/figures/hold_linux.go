package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/guise-project/guise/bench/internal/role"
)

// hold opens n connections, prints by how many bytes the resident memory grew, and keeps them until the standard input ends. Before the
// first look there were some early ones, which need code and tables that the others don't need anew; after it turn is called.
func hold(n, early int, open func() (io.Closer, error), turn func() error) error {
	// What this program itself needs to hold them is there, and touched, before the first look.
	held := make([]io.Closer, n)
	for i := range held {
		held[i] = io.NopCloser(nil)
	}
	clear(held)
	for range early {
		c, err := open()
		if err != nil {
			return err
		}
		c.Close()
	}
	before, err := residentBytes()
	if err != nil {
		return err
	}
	if err := turn(); err != nil {
		return err
	}
	for i := range held {
		if held[i], err = open(); err != nil {
			return err
		}
	}
	after, err := residentBytes()
	if err != nil {
		return err
	}
	fmt.Println(after - before)
	role.AwaitEnd()
	runtime.KeepAlive(held)
	return nil
}
