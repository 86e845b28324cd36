package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// programMissing reports whether no client will find a program. It is looked for as the client each time, in the PATH of that, so that it is
// there now says little.
func programMissing(name string) bool {
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = nil
		for _, dir := range filepath.SplitList(rootPath) { // has the others' in it
			candidates = append(candidates, filepath.Join(dir, name))
		}
	}
	for _, path := range candidates {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}
