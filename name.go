package guise

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/guise-project/guise/internal/pipename"
)

// maxPath is the longest path of a socket, in bytes (sun_path of unix(7), with its NUL).
const maxPath = 107

// address is where a pipe is: a name, to be looked for in directories, or a path.
type address struct {
	text string // as people are told it
	name string // folded; "" if it is a path
	path string // "" if it is a name
}

// parseAddress understands NAME, \\.\pipe\NAME and PATH; a path has a slash in it. The empty name, "." and "..", and whatever
// else is neither, are errors.
func parseAddress(s string) (address, error) {
	a, err := parse(s)
	if err != nil {
		return address{}, fmt.Errorf("%w: %w", ErrBadName, err)
	}
	return a, nil
}

func parse(s string) (address, error) {
	if s == "" {
		return address{}, errors.New("a pipe needs a name")
	}
	if strings.ContainsRune(s, '/') {
		if strings.ContainsRune(s, 0) {
			return address{}, errors.New("a path can't have a NUL byte in it")
		}
		path := filepath.Clean(s)
		if len(path) > maxPath {
			return address{}, fmt.Errorf("the path is %d bytes long, a socket's can have %d", len(path), maxPath)
		}
		return address{text: path, path: path}, nil
	}
	name := s
	if rest, isUNC := strings.CutPrefix(s, `\\`); isUNC {
		host, rest, _ := strings.Cut(rest, `\`)
		share, pipe, _ := strings.Cut(rest, `\`)
		if !strings.EqualFold(share, "pipe") {
			return address{}, fmt.Errorf(`%s is no pipe: they are called \\.\pipe\NAME`, s)
		}
		if host != "." {
			return address{}, fmt.Errorf(`%s is on another machine: that takes smb.Dial; here it can be \\.\pipe\NAME`, s)
		}
		name = pipe
	}
	name, err := pipename.Fold(name)
	if err != nil {
		return address{}, err
	}
	return address{text: name, name: name}, nil
}
